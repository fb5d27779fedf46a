"""Preflight against the chip: predicted and observed slope, correlation and signal-to-noise ratio.

    python benchmarks/preflight.py [--chips wukong clean] [--rows 32] [--blocks 2] [--shots 1000] [--output preflight]

Predictions rest on what the cloud lists of its chip; values are observed through the Origin device with the vendor's
client, on emulators of the cloud. Wukong has effects that it does not list (docs/emulator.md), the clean chip has none.
Every ansatz at every depth on 4 qubits, and some on 8, with inputs and weights drawn uniformly from [-pi, pi]. Each row
of inputs is run on every block, side by side in one program. Written to benchmarks/results/NAME.json.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.table import Table
from timing import result_name, save
from torch import Tensor

from qpeft.circuits import ansatz
from qpeft.circuits.ansatz import ANSATZE
from qpeft.circuits.circuit import Circuit
from qpeft.devices import AbstractDevice, chip, device_expectations, find_blocks, load_device
from qpeft.devices.chip import Signal, depolarising_only
from qpeft.simulation import expectations
from qpeft.simulation.noise import NoiseModel, SampleKey
from qpeft.simulation.noise.counter import Stream

EMULATOR = [sys.executable, "-c", "from qpeft_cli.main import main; main()", "devices", "emulator"]
CHIP_IDS = {"wukong": "72", "clean": "clean"}
FOUR_QUBITS = [(name, 4, depth) for name in ANSATZE for depth in (1, 2, 3, 4)]
EIGHT_QUBITS = [("ring_cz", 8, 1), ("ring_cz", 8, 2), ("ring_crz", 8, 1)]
QUANTITIES = ("slope", "offset", "correlation", "snr")
KINDS = ("predicted", "depolarised", "observed")


@dataclass(frozen=True)
class Point:
    """One circuit on one block: as the calibration predicts it, with the same fidelities as depolarising, and as seen.

    Slopes are those of one line through all observables, each about its own mean. Offsets, correlations of readings
    with finite shots and signal-to-noise ratios are means over the observables. `slope_error` is the standard error of
    the observed slope that shot noise alone causes.
    """

    ansatz: str
    num_qubits: int
    depth: int
    block: tuple[int, ...]
    predicted: dict[str, float]
    depolarised: dict[str, float]
    observed: dict[str, float]
    slope_error: float

    @property
    def circuit(self) -> str:
        return f"{self.ansatz} {self.num_qubits} {self.depth}"


@contextmanager
def emulator(chip: str, seed: int) -> Iterator[str]:
    """The URL of an emulator in a process of its own."""
    command = [*EMULATOR, "--chip", chip, "--seed", str(seed), "--seconds", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split()[-1]
    finally:
        process.terminate()
        process.wait()


def angles(name: str, *shape: int) -> Tensor:
    """Uniform in [-pi, pi], a function of the name."""
    return (2 * Stream(SampleKey(0, module=name)).uniforms(*shape) - 1) * math.pi


def measure(
    device: AbstractDevice, calibration: NoiseModel, setting: tuple[str, int, int], rows: int, blocks: int, shots: int
) -> list[Point]:
    """One circuit on each of the best `blocks` blocks; `device` has as many side by side, in the same order."""
    name, num_qubits, depth = setting
    circuit = ANSATZE[name](num_qubits, depth)
    weights = angles(f"{name} {depth}", circuit.num_weights)
    inputs = angles(f"inputs {num_qubits}", rows, num_qubits)
    exact = expectations(circuit, inputs, weights).numpy()
    observed = observe(device, circuit, inputs, weights, blocks, shots)
    found = []
    for number, block in enumerate(find_blocks(circuit, calibration, most=blocks)):
        predicted, depolarised = (
            chip(circuit, inputs, weights, listed, shots=shots, block=block, max_rows=rows).signals
            for listed in (calibration, depolarising_only(calibration))
        )
        seen = [
            Signal.of(observable, exact[:, column], observed[:, number, column], shots)
            for column, observable in enumerate(circuit.observables)
        ]
        found.append(
            Point(
                *setting,
                block=block,
                predicted=numbers(predicted, [signal.expected_correlation for signal in predicted]),
                depolarised=numbers(depolarised, [signal.expected_correlation for signal in depolarised]),
                # Shot noise is in the values that were seen, so their plain correlation has it.
                observed=numbers(seen, [signal.line.correlation for signal in seen]),
                slope_error=slope_error(predicted, rows),
            )
        )
    return found


def numbers(signals: Sequence[Signal], correlations: Sequence[float]) -> dict[str, float]:
    """What is compared."""
    weights = np.array([signal.line.spread**2 for signal in signals])
    slopes = np.array([signal.line.slope for signal in signals])
    found = {
        "slope": weights @ slopes / weights.sum(),
        "offset": np.mean([signal.line.offset for signal in signals]),
        "correlation": np.mean(correlations),
        "snr": np.mean([signal.signal_to_noise for signal in signals]),
    }
    return {name: round(float(value), 5) for name, value in found.items()}


def slope_error(signals: Sequence[Signal], rows: int) -> float:
    """Standard error of the slope in `numbers`."""
    spreads = np.array([signal.line.spread for signal in signals])
    shot_noise = np.array([signal.shot_noise for signal in signals])
    return round(float(np.linalg.norm(spreads * shot_noise) / (spreads @ spreads) / math.sqrt(rows)), 5)


def observe(
    device: AbstractDevice, circuit: Circuit, inputs: Tensor, weights: Tensor, blocks: int, shots: int
) -> np.ndarray:
    """Values of shape (rows, blocks, observables)."""
    # Turns by 1e-9 more make the copies of a row different circuits, which are all sent.
    copies = torch.stack([inputs + 1e-9 * number for number in range(blocks)], dim=1)
    return device_expectations(circuit, copies, weights, device, shots).values.numpy()


def circuit_table(title: str, points: Sequence[Point]) -> Table:
    """Per circuit, means over blocks: predicted from the calibration, predicted with depolarising alone, and seen."""
    table = Table("ansatz, qubits, depth", *QUANTITIES, "slope by shots", title=title)
    for circuit in dict.fromkeys(point.circuit for point in points):
        own = [point for point in points if point.circuit == circuit]
        cells = []
        for quantity in QUANTITIES:
            means = [np.mean([getattr(point, kind)[quantity] for point in own]) for kind in KINDS]
            cells.append(" ".join(f"{mean:.{1 if quantity == 'snr' else 3}f}" for mean in means))
        table.add_row(circuit, *cells, f"{rms([point.slope_error for point in own]):.3f}")
    return table


def rms(values: npt.ArrayLike) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(values))))


def summary(points: Sequence[Point]) -> dict[str, float]:
    """Correlation of predicted with observed over all points, and how far slopes are off, beside what shots explain."""
    found = {}
    for kind in KINDS[:2]:
        for quantity in QUANTITIES:
            predicted = np.array([getattr(point, kind)[quantity] for point in points])
            observed = np.array([point.observed[quantity] for point in points])
            found[f"{quantity}, {kind}: correlation with seen"] = float(np.corrcoef(predicted, observed)[0, 1])
            found[f"{quantity}, {kind}: mean of seen minus predicted"] = float((observed - predicted).mean())
            found[f"{quantity}, {kind}: rms error"] = rms(observed - predicted)
    found["slope: rms error that shots explain"] = rms([point.slope_error for point in points])
    return {name: round(value, 4) for name, value in found.items()}


def main() -> None:
    """Predict, observe, print the tables, store them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chips", nargs="+", choices=list(CHIP_IDS), default=list(CHIP_IDS))
    parser.add_argument("--rows", type=int, default=32, help="of inputs, for 4 qubits")
    parser.add_argument("--rows-of-8", type=int, default=12, help="of inputs, for 8 qubits; 0 leaves them out")
    parser.add_argument("--blocks", type=int, default=2, help="on which each row is run, for 4 qubits; 8 have one")
    parser.add_argument("--shots", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="of the emulated chip")
    parser.add_argument("--output", type=result_name, default="preflight", help="name in benchmarks/results")
    options = parser.parse_args()
    # The emulator's own key, in this process alone.
    os.environ["QPEFT_ORIGIN_KEY"] = "emulator"
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for chip in options.chips:
            with emulator(chip, options.seed) as url:
                results[chip] = one_chip(chip, url, Path(folder), options)
    save(options.output, {"shots": options.shots, "seed": options.seed, "chips": results})


def one_chip(chip: str, url: str, folder: Path, options: argparse.Namespace) -> dict[str, object]:
    """Everything about one chip, printed and returned."""
    start, points, console = time.perf_counter(), list[Point](), Console(width=120, highlight=False)
    groups = [(FOUR_QUBITS, options.rows, options.blocks), (EIGHT_QUBITS, options.rows_of_8, 1)]
    for settings, num_rows, blocks in groups:
        if not num_rows:
            continue
        device = load_device(
            "origin", url=url, chip=CHIP_IDS[chip], amend=False, side_by_side=blocks, outbox=str(folder / chip)
        )
        with closing(device):
            calibration = device.calibration()
            for setting in settings:
                points += measure(device, calibration, setting, num_rows, blocks, options.shots)
    num_side_by_side = len(find_blocks(ansatz.ring_cz(8), calibration))
    facts = {"8-qubit rings side by side": num_side_by_side, **summary(points)}
    console.print(circuit_table(f"{chip}, {options.shots:,} shots: as listed, depolarising alone, seen", points))
    for name, value in facts.items():
        console.print(f"{name}: {value}")
    console.print(f"{time.perf_counter() - start:.0f} s\n")
    return {**facts, "points": [asdict(point) for point in points]}


if __name__ == "__main__":
    main()

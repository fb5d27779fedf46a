"""What error mitigation does to expectation values, and what it costs, on the emulator's chips.

    python benchmarks/mitigation.py [--rows 48] [--shots 1000] [--seed 0] [--output benchmarks/results/mitigation.json]

Error is the root of the mean square of value - exact value, over rows of inputs and Z of every qubit; four qubits,
inputs standard normal, weights of standard deviation 0.5, new ones every 6 rows. Three columns: without sampling error,
with as many shots for each circuit, and with equal shots in all for each row (three times as many for methods that send
one circuit). Circuits run as they stand, gate by gate, on a fixed block of a ring; "wukong" has effects that its
calibration does not list and drifts from job to job, "clean" errs as listed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from emulated_chip import EmulatedChip, Shares, ring_block
from rich.console import Console
from rich.table import Table
from timing import machine as this_machine
from torch import Tensor

from qpeft.circuits import Circuit, ansatz
from qpeft.devices import AbstractMitigation, ReadoutInversion, ZeroNoise, device_expectations, forward_circuits
from qpeft.simulation import expectations
from qpeft_emulator.machine import ChipName, open_machine

NUM_QUBITS = 4
ROWS_PER_WEIGHTS = 6
CHIPS: tuple[ChipName, ...] = ("wukong", "clean")
CIRCUITS = {
    "ring_cz, depth 1": ansatz.ring_cz(NUM_QUBITS, 1),
    "ring_cz, depth 2": ansatz.ring_cz(NUM_QUBITS, 2),
    "ring_crz, depth 1": ansatz.ring_crz(NUM_QUBITS, 1),
}


@dataclass(frozen=True)
class Method:
    """A mitigation made for a device, and whether the device corrects readout itself."""

    make: Callable[[EmulatedChip], AbstractMitigation | None]
    amend: bool = False


METHODS: dict[str, Method] = {
    "none": Method(lambda _: None),
    "the cloud's amendment": Method(lambda _: None, amend=True),
    "readout, as listed": Method(
        lambda device: ReadoutInversion.from_calibration(device.calibration(), range(NUM_QUBITS))
    ),
    "readout, measured": Method(lambda _: ReadoutInversion()),
    "ZNE 1 3 5, line": Method(lambda _: ZeroNoise()),
    "readout + ZNE 1 3, line": Method(lambda _: ZeroNoise((1, 3), readout_inversion=ReadoutInversion())),
    "readout + ZNE 1 3 5, line": Method(lambda _: ZeroNoise(readout_inversion=ReadoutInversion())),
    "readout + ZNE 1 3 5, parabola": Method(lambda _: ZeroNoise(order=2, readout_inversion=ReadoutInversion())),
}


def rms_error(device: EmulatedChip, circuit: Circuit, method: Method, rows: int, shots: int | None, seed: int) -> float:
    """Over all rows and observables, on a fresh device, so that every method meets the same drift."""
    mitigation, errors = method.make(device), []
    for inputs, weights in problems(circuit, rows, seed):
        values = device_expectations(circuit, inputs, weights, device, shots, mitigation=mitigation).values
        errors.append(values - expectations(circuit, inputs, weights))
    return float(torch.cat(errors).square().mean().sqrt())


def problems(circuit: Circuit, rows: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    """Inputs and weights, radians, float64."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    sizes = [min(ROWS_PER_WEIGHTS, rows - first) for first in range(0, rows, ROWS_PER_WEIGHTS)]
    return [(normal(size, circuit.num_inputs), 0.5 * normal(circuit.num_weights)) for size in sizes]


def main() -> None:
    """Measure, print the table, store it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--shots", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="of the chip, the angles and the samples")
    parser.add_argument("--output", type=Path, help="JSON file for the table")
    options = parser.parse_args()
    most = 3 * options.shots
    columns = ("error, no sampling", f"{options.shots:,} shots a circuit", f"{most:,} shots a row")
    table = Table("chip", "circuit", "method", "circuits a row", "calibration", *columns)
    results = []
    for chip in CHIPS:
        machine = open_machine(chip, options.seed)
        block = ring_block(machine, NUM_QUBITS)
        for name, circuit in CIRCUITS.items():
            known: dict[tuple[Circuit, int], Shares] = {}
            for label, method in METHODS.items():
                device = partial(EmulatedChip, machine, block, amend=method.amend, seed=options.seed, known=known)
                mitigation = method.make(device())
                sent = forward_circuits(circuit, mitigation=mitigation)
                before = mitigation.num_calibration_circuits if mitigation else 0
                errors = [
                    rms_error(device(), circuit, method, options.rows, shots, options.seed)
                    for shots in (None, options.shots, most // sent)
                ]
                table.add_row(chip, name, label, str(sent), str(before), *(f"{error:.3f}" for error in errors))
                row = {"chip": chip, "circuit": name, "method": label, "circuits": sent, "calibration": before}
                results.append(row | dict(zip(columns, errors, strict=True)))
    Console(width=160).print(table)
    if options.output:
        settings = {"rows": options.rows, "shots": options.shots, "seed": options.seed}
        text = json.dumps({"machine": this_machine(), "settings": settings, "results": results}, indent=2)
        options.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

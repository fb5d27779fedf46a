"""Does training with noise help on a noisy chip? A small regression, trained in four ways, evaluated in five.

    python benchmarks/noise_aware.py [--seeds 4] [--steps 200] [--output benchmarks/results/noise_aware.json]

One linear layer of zeros, adapted by a QTHA circuit of four qubits and nothing beside it, learns a function of four
numbers. Trained exactly; with `LinearNoise`, fitted every 50 steps to the listed calibration at the present angles,
without and with the noise of 1,000 shots; and with that of the shots alone. Evaluated exactly, and at 1,000 shots on
the emulator's Wukong with its hidden effects: values as they come, with the fitted line undone, with readout inversion,
and with readout inversion and ZNE. Numbers are mean squared errors on fresh data relative to the variance of the
target: mean and standard deviation over seeds.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import torch
from emulated_chip import EmulatedChip, ring_block
from peft import get_peft_model
from rich.console import Console
from rich.table import Table
from timing import machine as this_machine
from torch import Tensor, nn

import qpeft
from qpeft import QthaConfig
from qpeft.adapters.qtha.bottleneck import CircuitBottleneck
from qpeft.adapters.qtha.branch import QthaBranch
from qpeft.devices import AbstractMitigation, ReadoutInversion, ZeroNoise, device_expectations
from qpeft.simulation import expectations
from qpeft.simulation.noise import LinearNoise, noisy_expectations
from qpeft_emulator.machine import Machine, open_machine

NUM_QUBITS, SHOTS = 4, 1000
FIT_EVERY = 50
NOT_DISTURBED = LinearNoise((1.0,) * NUM_QUBITS, (0.0,) * NUM_QUBITS)
CIRCUITS = (("ring_cz", 1), ("ring_cz", 2), ("ring_cz", 4))
"""Ansatz and depth; whose two-qubit gates are the chip's own, so that the listed calibration says all about them."""
WAYS = ("exact", "line", "line and shots", "shots")
PLACES = ("simulator", "chip", "chip, line undone", "chip, readout", "chip, readout + ZNE")


class OneLayer(nn.Module):
    """A linear layer of zeros, called `layer`."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(NUM_QUBITS, 1, bias=False)
        nn.init.zeros_(self.layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, 4) to (rows, 1)."""
        return self.layer(x)


def data(rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """Uniform inputs (rows, 4), and a smooth function of them (rows, 1) of variance about 1."""
    x = 2 * torch.rand(rows, NUM_QUBITS, generator=torch.Generator().manual_seed(seed)) - 1
    y = torch.sin(math.pi * x[:, 0]) * torch.cos(x[:, 1]) + torch.sin(math.pi * (x[:, 2] - x[:, 3]) / 2)
    return x, y[:, None]


def fresh(seed: int, ansatz: str, depth: int) -> tuple[nn.Module, QthaBranch]:
    """The adapted layer and its branch."""
    config = QthaConfig(
        rank=NUM_QUBITS, ansatz=ansatz, depth=depth, down="dense", up="dense", classical_path=False,
        target_modules=["layer"], init_seed=seed,
    )  # fmt: skip
    model = get_peft_model(OneLayer(), config)
    (branch,) = (module for module in model.modules() if isinstance(module, QthaBranch))
    return model, branch


def fitted(branch: QthaBranch, device: EmulatedChip, x: Tensor) -> LinearNoise:
    """The line from exact to noisy values by the listed calibration, at the present angles."""
    middle = branch.middle
    assert isinstance(middle, CircuitBottleneck)
    with torch.no_grad():
        angles, weights = middle.angles(nn.functional.linear(x, branch.down())), middle.weights[0]
        noisy = noisy_expectations(middle.circuit, angles, weights, device.calibration())
        return LinearNoise.fit(expectations(middle.circuit, angles, weights), noisy)


def train(model: nn.Module, branch: QthaBranch, device: EmulatedChip, way: str, steps: int, seed: int) -> None:
    """Adam on fresh batches of 64."""
    optimizer = torch.optim.Adam([weight for weight in model.parameters() if weight.requires_grad], lr=0.02)
    model.train()
    for step in range(steps):
        x, y = data(64, 10_000 * (seed + 1) + step)
        if way != "exact" and step % FIT_EVERY == 0:
            noise = NOT_DISTURBED if way == "shots" else fitted(branch, device, x)
            source = qpeft.set_training_noise(model, noise, shots=None if way == "line" else SHOTS, seed=seed)
        if way != "exact":
            assert source is not None
            source.begin_step(step)
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
    qpeft.set_training_noise(model, None)
    model.eval()


@torch.no_grad()
def relative_error(model: nn.Module, branch: QthaBranch, device: EmulatedChip, place: str, rows: int) -> float:
    """Mean squared error over the variance of the target, on data that training did not see."""
    x, y = data(rows, 1)
    mitigations: dict[str, AbstractMitigation | None] = {
        "chip, readout": ReadoutInversion(),
        "chip, readout + ZNE": ZeroNoise((1, 3), readout_inversion=ReadoutInversion()),
    }
    if place == "chip, line undone":
        undo_line(branch, fitted(branch, device, x), device)
    elif place != "simulator":
        qpeft.set_quantum_device(model, device, shots=SHOTS, mitigation=mitigations.get(place))
    error = float((model(x) - y).square().mean() / y.var())
    qpeft.set_quantum_device(model, None)
    return error


def undo_line(branch: QthaBranch, noise: LinearNoise, device: EmulatedChip) -> None:
    """Let the circuit's values come from the device, and be taken for slope * exact + offset."""
    middle = branch.middle
    assert isinstance(middle, CircuitBottleneck)
    slopes, offsets = torch.tensor(noise.slopes), torch.tensor(noise.offsets)
    middle.set_evaluator(
        lambda circuit, angles, weights: (
            (device_expectations(circuit, angles, weights, device, SHOTS).values - offsets) / slopes
        )
    )


def measure(machine: Machine, ansatz: str, depth: int, seeds: int, steps: int, rows: int) -> dict[str, Tensor]:
    """Way of training to errors, (seeds, places)."""
    block, found = ring_block(machine, NUM_QUBITS), {}
    for way in WAYS:
        errors = []
        for seed in range(seeds):
            model, branch = fresh(seed, ansatz, depth)
            train(model, branch, EmulatedChip(machine, block), way, steps, seed)
            errors.append(
                [relative_error(model, branch, EmulatedChip(machine, block, seed=seed), p, rows) for p in PLACES]
            )
        found[way] = torch.tensor(errors)
    return found


def main() -> None:
    """Measure, print the table, store it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rows", type=int, default=40, help="of the data evaluated on")
    parser.add_argument("--output", type=Path, help="JSON file for the table")
    options = parser.parse_args()
    machine, results = open_machine("wukong", 0), []
    table = Table("circuit", "trained", *PLACES)
    for ansatz, depth in CIRCUITS:
        for way, errors in measure(machine, ansatz, depth, options.seeds, options.steps, options.rows).items():
            means, deviations = errors.mean(0).tolist(), errors.std(0).tolist()
            cells = [f"{mean:.3f} ± {deviation:.3f}" for mean, deviation in zip(means, deviations, strict=True)]
            table.add_row(f"{ansatz}, depth {depth}", way, *cells)
            results.append(
                {"circuit": f"{ansatz}, depth {depth}", "trained": way, "places": PLACES, "errors": errors.tolist()}
            )
    Console(width=160).print(table)
    if options.output:
        settings = {"seeds": options.seeds, "steps": options.steps, "rows": options.rows, "shots": SHOTS}
        text = json.dumps({"machine": this_machine(), "settings": settings, "results": results}, indent=2)
        options.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

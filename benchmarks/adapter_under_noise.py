"""What shots and noise make of a trained adapter: its held-out loss, with its circuits exact, sampled and disturbed.

    python benchmarks/adapter_under_noise.py TEST.jsonl RUN [RUN ...] [--items 60] [--shots 1000] [--output NAME]

RUN is a folder that `qpeft train` or a study made (STUDY/trials/*/run), with a QTHA adapter; several are seeds of
one method. TEST is read as the run's recipe reads its data. The circuits of all adapted layers, for every token, are
evaluated in four ways: exactly; as means of so many shots; with what the emulated Wukong lists of a ring of its
qubits (gate and readout errors), as means of infinitely many shots; and with both. A CRZ is two of the chip's CZ,
so the noise of the pair acts twice there. The fifth row has 0 for every value: the adapter without its circuits.
Differences from the exact row are over the same items, with 95 % intervals over runs and items.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import yaml
from emulated_chip import EmulatedChip, ring_block
from peft import PeftModel
from rich.console import Console
from rich.table import Table
from timing import machine, result_name, save
from torch import Tensor

from qpeft.adapters.load import load_adapter
from qpeft.adapters.qtha.bottleneck import CircuitBottleneck
from qpeft.circuits import Circuit
from qpeft.comparison.holdout import holdout_data
from qpeft.evaluation import held_out_loss
from qpeft.evaluation.statistics import paired_difference
from qpeft.models import load_model, load_tokenizer
from qpeft.simulation.noise import EdgeNoise, NoiseModel, SampleKey
from qpeft.simulation.shots import sampled_expectations
from qpeft.training.config import parse_recipe
from qpeft.training.splits import load_held_out
from qpeft_emulator.machine import open_machine

Values = Callable[[int, Circuit, Tensor, Tensor], Tensor]
"""Number of the layer, circuit, its angles (tokens, inputs) and weights to values (tokens, observables)."""


def listed_noise(circuit: Circuit) -> NoiseModel:
    """What the emulated Wukong lists of a ring of its qubits, for this circuit's gates."""
    chip = open_machine("wukong", 0)
    noise = EmulatedChip(chip, ring_block(chip, circuit.num_qubits)).calibration()
    pairs = {one.gate_name for one in circuit.operations if one.gate.num_qubits == 2}
    if not pairs <= {"CZ", "CNOT", "CRZ"}:
        raise SystemExit(f"No rule for the noise of {sorted(pairs - {'CZ', 'CNOT', 'CRZ'})} on this chip.")
    return noise if "CRZ" not in pairs else NoiseModel(noise.qubits, tuple((a, twice(b)) for a, b in noise.edges))


def twice(edge: EdgeNoise) -> EdgeNoise:
    """The noise of two gates on a pair: what is left of every Pauli value is left twice."""
    damping = tuple(
        replace(one, amplitude=1 - (1 - one.amplitude) ** 2, phase=1 - (1 - one.phase) ** 2) for one in edge.damping
    )
    return replace(edge, depolarising=1 - (1 - edge.depolarising) ** 2, damping=damping)


def ways(shots: int) -> dict[str, Values | None]:
    """How circuits are evaluated, by name; None for the simulator itself."""
    models: dict[Circuit, NoiseModel] = {}

    def noise_of(circuit: Circuit) -> NoiseModel:
        if circuit not in models:
            models[circuit] = listed_noise(circuit)
        return models[circuit]

    calls = 0

    def sampled(number: int | None, *, noisy: bool) -> Values:
        def values(layer: int, circuit: Circuit, angles: Tensor, weights: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            key = SampleKey(0, 0, layer, calls)
            noise = noise_of(circuit) if noisy else None
            return sampled_expectations(circuit, angles, weights, number, key, noise=noise).values

        return values

    return {
        "exact": None,
        f"{shots:,} shots": sampled(shots, noisy=False),
        "noise": sampled(None, noisy=True),
        f"noise, {shots:,} shots": sampled(shots, noisy=True),
        "circuits at 0": lambda _, circuit, angles, __: angles.new_zeros(*angles.shape[:-1], circuit.num_observables),
    }


def put(model: PeftModel, values: Values | None) -> None:
    """Let all circuits of the model be evaluated in this way."""
    middles = [module for module in model.modules() if isinstance(module, CircuitBottleneck)]
    if not middles:
        raise SystemExit("The adapter has no circuits.")
    for number, middle in enumerate(middles):
        middle.set_evaluator(None if values is None else side_by_side(number, values))


def side_by_side(number: int, values: Values) -> Callable[[Circuit, Tensor, Tensor], Tensor]:
    """The circuits of one layer, each on its own angles."""

    def evaluate(circuit: Circuit, angles: Tensor, weights: Tensor) -> Tensor:
        parts = [values(number, circuit, angles[..., k, :], weights[k]) for k in range(len(weights))]
        return torch.stack(parts, dim=-2)

    return evaluate


def main() -> None:
    """Print the table and write benchmarks/results/NAME.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("test")
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--items", type=int, default=60)
    parser.add_argument("--shots", type=int, default=1000)
    parser.add_argument("--output", type=result_name, default="adapter_under_noise")
    options = parser.parse_args()
    losses: dict[str, list[tuple[float, ...]]] = {name: [] for name in ways(options.shots)}
    tokens: tuple[int, ...] = ()
    for run in options.runs:
        recipe = parse_recipe(yaml.safe_load((run / "recipe.yaml").read_text()), source=str(run))
        tokenizer = load_tokenizer(recipe.model.name, chat_template=recipe.model.chat_template)
        held_out = load_held_out(holdout_data(recipe.data, options.test, options.items), tokenizer)
        assert held_out is not None
        model = load_adapter(load_model(recipe.model.name), run)
        for name, values in ways(options.shots).items():
            put(model, values)
            found = held_out_loss(model, held_out.encoded)
            tokens = found.item_tokens
            losses[name].append(found.item_sums)
            print(f"{run.parent.name}, {name}: {found.loss:.4f}", flush=True)
    show(losses, tokens, options)


def show(losses: dict[str, list[tuple[float, ...]]], tokens: tuple[int, ...], options: argparse.Namespace) -> None:
    """Table and file."""
    counts, exact = np.array(tokens, dtype=float), np.array(losses["exact"])
    rows = []
    table = Table("circuits", "loss", "minus exact, 95 % interval", "by run")
    for name, sums in losses.items():
        nats = np.array(sums)
        by_run = (nats.sum(1) / counts.sum()).tolist()
        row = {"circuits": name, "loss": float(np.mean(by_run)), "by_run": by_run}
        difference = ""
        if name != "exact":
            found = paired_difference(nats, exact, counts)
            row |= {"difference": found.estimate, "low": found.low, "high": found.high}
            difference = f"{found.estimate:+.4f} ({found.low:+.4f} to {found.high:+.4f})"
        rows.append(row)
        table.add_row(name, f"{row['loss']:.4f}", difference, ", ".join(f"{one:.4f}" for one in by_run))
    settings = {"items": len(tokens), "tokens": int(counts.sum()), "runs": len(exact), "shots": options.shots}
    console = Console(width=130, highlight=False)
    console.print(f"{settings}; {machine()}")
    console.print(table)
    save(options.output, {"settings": settings, "rows": rows})


if __name__ == "__main__":
    main()

"""`qpeft inspect --circuit`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from qpeft import QthaConfig
    from qpeft.analysis import Estimate, Portrait

WITH_CIRCUIT = ("circuit", "frozen_circuit", "classical_form")
"""Bottlenecks of QTHA that are a circuit, or compute the same."""
NOTES = """
Expressibility is the divergence of fidelities from those of evenly drawn (Haar) states: 0 is even. Entangling
capability is 0 for product states; in brackets what Haar states give. Gradients are mean squares over random angles,
"fresh" at those of a new adapter; a factor per qubit that stays below 1 is a barren plateau. None of these says that a
circuit trains better or helps a model: only a comparison does (qpeft compare)."""


def show_circuits(
    what: Sequence[str],
    *,
    qubits: int | None,
    depth: int | None,
    samples: int | None,
    seed: int | None,
    figure: Path | None,
    as_json: bool,
) -> None:
    """Measure ansatze, or the circuit of a recipe, and print a table or JSON.

    Args:
        what: names of ansatze, none for all; or a YAML file and keys set after it.
        qubits, depth: None for those of the recipe, or 8 and 1.
        samples, seed: as `portrait`, which also knows the defaults.
        figure: file to draw to.
        as_json: print all numbers instead of a table.
    """
    from qpeft.analysis import portrait
    from qpeft.analysis.portrait import SAMPLES
    from qpeft.analysis.portrait_figures import check_format, save_portraits

    if figure is not None:
        check_format(figure)
    configs, num_qubits = _of_recipe(what, depth) if _is_recipe(what) else (_named(what, depth), 8)
    with Console(stderr=True).status("measuring circuits at random angles"):
        found = [
            portrait(config, qubits or num_qubits, samples=samples or SAMPLES, seed=seed or 0) for config in configs
        ]
    if figure is not None:
        save_portraits(found, figure)
    if as_json:
        print(json.dumps([one.as_dict() for one in found], indent=2))
        return
    console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
    console.print(_table(found))
    console.print(NOTES)
    if figure is not None:
        console.print(f"\nfigure: {figure}")


def _is_recipe(what: Sequence[str]) -> bool:
    return bool(what) and Path(what[0]).suffix.lower() in (".yaml", ".yml")


def _of_recipe(what: Sequence[str], depth: int | None) -> tuple[list[QthaConfig], int]:
    from qpeft import QthaConfig
    from qpeft.adapters.build import build_config
    from qpeft.errors import AdapterError
    from qpeft.training import load_recipe

    adapter = load_recipe(Path(what[0]), what[1:]).adapter
    options = adapter.options if depth is None else adapter.options | {"depth": depth}
    config = build_config(adapter.type, options)
    if not isinstance(config, QthaConfig) or config.bottleneck not in WITH_CIRCUIT:
        raise AdapterError(f"The adapter of {what[0]} has no circuit that reads inputs. Name an ansatz instead.")
    return [config], config.qubits_per_circuit(config.rank)


def _named(names: Sequence[str], depth: int | None) -> list[QthaConfig]:
    from qpeft import QthaConfig
    from qpeft.circuits.ansatz import ANSATZE, find_ansatz

    for name in names:
        if name.startswith("-"):
            raise typer.BadParameter(f"there is no option {name}", param_hint="--circuit")
        find_ansatz(name)
    return [QthaConfig(ansatz=name, depth=depth or 1) for name in dict.fromkeys(names) or ANSATZE]


def _table(portraits: Sequence[Portrait]) -> Table:
    first = portraits[0]
    size = "1 qubit" if first.num_qubits == 1 else f"{first.num_qubits} qubits"
    table = Table(f"{size}, depth {first.depth}", *(one.ansatz for one in portraits))
    for row in ROWS:
        if row is None:
            table.add_section()
        else:
            name, cell = row
            table.add_row(name, *map(cell, portraits))
    return table


def _two_qubit_gates(one: Portrait) -> str:
    counts = one.resources
    return f"{counts.gates}, {counts.two_qubit_gates}, {counts.controlled_z}"


def _weights(one: Portrait) -> str:
    dead = one.resources.dead_weights
    return f"{one.resources.weights}" + (f" ({dead} without effect)" if dead else "")


def _estimate(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} +- {estimate.standard_error:.3f} ({estimate.haar:.3f})"


def _gradients(one: Portrait, *, of_mean: bool = False, fresh: bool = False) -> str:
    sizes = one.gradients.start if fresh else one.gradients.uniform
    size = sizes[one.gradients.num_qubits.index(one.num_qubits)]
    return f"{size.mean if of_mean else size.first:.2e}"


def _waves(one: Portrait) -> str:
    return ", ".join(f"{amplitude:.3f}" for amplitude in one.spectrum.by_frequency)


def _interactions(one: Portrait) -> str:
    shares = one.spectrum.interactions
    if shares is None:
        return "grid too large"
    return ", ".join(f"{number}: {share:.1%}" for number, share in enumerate(shares, start=1) if share >= 0.0005)


def _reached(one: Portrait) -> str:
    if one.spectrum.reached is None:
        return f"at most {one.spectrum.possible:,}"
    return f"{one.spectrum.reached:,.0f} of {one.spectrum.possible:,}"


ROWS: tuple[tuple[str, Callable[[Portrait], str]] | None, ...] = (
    ("gates, on two qubits, as CZ", _two_qubit_gates),
    ("depth in gates", lambda one: str(one.resources.depth)),
    ("weights", _weights),
    ("exact classical form", lambda one: "yes" if one.resources.has_classical_form else "no"),
    None,
    ("expressibility (Haar), nats", lambda one: _estimate(one.expressibility)),
    ("entangling capability (Haar)", lambda one: _estimate(one.entangling)),
    None,
    ("gradient variance of Z_0", _gradients),
    ("  factor per qubit, from 4 on", lambda one: f"{one.gradients.decay_per_qubit:.2f}"),
    ("  of the mean of Z", lambda one: _gradients(one, of_mean=True)),
    ("gradient of Z_0 squared, fresh", lambda one: _gradients(one, fresh=True)),
    None,
    ("wave amplitude, frequency 0, 1, ...", _waves),
    ("inputs that a value depends on", lambda one: f"{one.spectrum.inputs_seen:.1f}"),
    ("waves in a value", _reached),
    ("variance from 1, 2, ... inputs", _interactions),
)

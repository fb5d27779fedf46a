"""`qpeft inspect --circuit`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.table import Table

from qpeft_cli.terminal import plain_console

if TYPE_CHECKING:
    from qpeft.analysis import Portrait

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
    from qpeft import QthaConfig
    from qpeft.adapters.build import build_config
    from qpeft.analysis import portrait
    from qpeft.analysis.portrait import SAMPLES
    from qpeft.analysis.portrait_figures import check_format, save_portraits
    from qpeft.circuits.ansatz import ANSATZE, find_ansatz
    from qpeft.errors import AdapterError
    from qpeft.training import load_recipe

    # Measuring takes a minute: a wrong ending of the file should be said before.
    if figure is not None:
        check_format(figure)
    if what and Path(what[0]).suffix.lower() in (".yaml", ".yml"):
        adapter = load_recipe(Path(what[0]), what[1:]).adapter
        options = adapter.options if depth is None else adapter.options | {"depth": depth}
        config = build_config(adapter.type, options)
        if not isinstance(config, QthaConfig) or config.bottleneck not in WITH_CIRCUIT:
            raise AdapterError(f"The adapter of {what[0]} has no circuit that reads inputs. Name an ansatz instead.")
        configs, num_qubits = [config], config.qubits_per_circuit(config.rank)
    else:
        for name in what:
            # The command takes keys of a recipe, so that typer lets unknown options through.
            if name.startswith("-"):
                raise typer.BadParameter(f"there is no option {name}", param_hint="--circuit")
            find_ansatz(name)
        configs = [QthaConfig(ansatz=name, depth=depth or 1) for name in dict.fromkeys(what) or ANSATZE]
        num_qubits = 8
    with Console(stderr=True).status("measuring circuits at random angles"):
        found = [
            portrait(config, qubits or num_qubits, samples=samples or SAMPLES, seed=seed or 0) for config in configs
        ]
    if figure is not None:
        save_portraits(found, figure)
    # All numbers and nothing else, for another program.
    if as_json:
        print(json.dumps([one.as_dict() for one in found], indent=2))
        return
    console, first = plain_console(), found[0]
    size = "1 qubit" if first.num_qubits == 1 else f"{first.num_qubits} qubits"
    table = Table(f"{size}, depth {first.depth}", *(one.ansatz for one in found))
    for sections in zip(*map(_sections, found), strict=True):
        for title in sections[0]:
            table.add_row(title, *(section[title] for section in sections))
        table.add_section()
    console.print(table)
    console.print(NOTES)
    if figure is not None:
        console.print(f"\nfigure: {figure}")


def _sections(one: Portrait) -> tuple[dict[str, str], ...]:
    """Return the cells of one circuit by the titles of their rows, section by section."""
    counts, spectrum, gradients = one.resources, one.spectrum, one.gradients
    # Gradients are measured at several widths; these are those at the width of the portrait.
    place = gradients.num_qubits.index(one.num_qubits)
    random, fresh = gradients.uniform[place], gradients.start[place]
    dead = f" ({counts.dead_weights} without effect)" if counts.dead_weights else ""
    interactions = "grid too large"
    if spectrum.interactions is not None:
        shares = enumerate(spectrum.interactions, start=1)
        interactions = ", ".join(f"{number}: {share:.1%}" for number, share in shares if share >= 0.0005)
    reached = f"at most {spectrum.possible:,}"
    if spectrum.reached is not None:
        reached = f"{spectrum.reached:,.0f} of {spectrum.possible:,}"
    return (
        {
            "gates, on two qubits, as CZ": f"{counts.gates}, {counts.two_qubit_gates}, {counts.controlled_z}",
            "depth in gates": str(counts.depth),
            "weights": f"{counts.weights}{dead}",
            "exact classical form": "yes" if counts.has_classical_form else "no",
        },
        {
            title: f"{estimate.value:.3f} +- {estimate.standard_error:.3f} ({estimate.haar:.3f})"
            for title, estimate in (
                ("expressibility (Haar), nats", one.expressibility),
                ("entangling capability (Haar)", one.entangling),
            )
        },
        {
            "gradient variance of Z_0": f"{random.first:.2e}",
            "  factor per qubit, from 4 on": f"{gradients.decay_per_qubit:.2f}",
            "  of the mean of Z": f"{random.mean:.2e}",
            "gradient of Z_0 squared, fresh": f"{fresh.first:.2e}",
        },
        {
            "wave amplitude, frequency 0, 1, ...": ", ".join(f"{size:.3f}" for size in spectrum.by_frequency),
            "inputs that a value depends on": f"{spectrum.inputs_seen:.1f}",
            "waves in a value": reached,
            "variance from 1, 2, ... inputs": interactions,
        },
    )

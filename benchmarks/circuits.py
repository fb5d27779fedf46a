"""What the ansatze could do at several depths, and how their gradients change with the number of qubits.

    python benchmarks/circuits.py [--depths 1 2 4 8] [--samples 5000] [--seed 0] [--draw-only]

Every ansatz on 8 qubits as `qpeft inspect --circuit` measures it; gradients on 2 to 10 qubits at each depth, and at a
depth that equals the number of qubits. Numbers go to benchmarks/results/circuits.json, depth by depth, and replace
those of the same depth; three figures go to docs/figures. About two minutes of one core.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from timing import machine

from qpeft import QthaConfig
from qpeft.analysis import gradient_size, portrait
from qpeft.analysis.portrait import GROWTH, SAMPLES
from qpeft.analysis.portrait_figures import COLOURS, write_figure
from qpeft.analysis.random_angles import uniform
from qpeft.circuits.ansatz import ANSATZE
from qpeft.runs import write_atomically

HERE = Path(__file__).parent
RESULTS, FIGURES = HERE / "results/circuits.json", HERE.parent / "docs/figures"
QUBITS = 8


def growing_depth(name: str, samples: int, seed: int) -> list[dict[str, Any]]:
    """Gradient sizes where the depth is the number of qubits."""
    rows = []
    for count in GROWTH:
        circuit = ANSATZE[name](count, count)
        size = gradient_size(circuit, uniform(circuit, samples, torch.Generator().manual_seed(seed)))
        rows.append({"num_qubits": count, **dataclasses.asdict(size)})
    return rows


def measure(depth: int, samples: int, seed: int) -> list[dict[str, Any]]:
    """Portraits of all ansatze, with amplitudes by frequency alone."""
    found = []
    for name in ANSATZE:
        one = portrait(QthaConfig(ansatz=name, depth=depth), QUBITS, samples=samples, seed=seed)
        fields = one.as_dict()
        del fields["spectrum"]["amplitudes"]
        fields["spectrum"] |= {"by_frequency": one.spectrum.by_frequency, "inputs_seen": one.spectrum.inputs_seen}
        found.append(fields)
    return found


def gradients(record: dict[str, Any]) -> Figure:
    """A panel per ansatz, a line per depth; dashed where the depth is the number of qubits."""

    def draw(name: str, axes: Axes) -> None:
        for one, colour in zip(_of(record, name), COLOURS, strict=False):
            sizes = [size["first"] for size in one["gradients"]["uniform"]]
            axes.plot(one["gradients"]["num_qubits"], sizes, "o-", color=colour, label=f"depth {one['depth']}")
        rows = record["depth_of_qubits"][name]
        counts, sizes = [row["num_qubits"] for row in rows], [row["first"] for row in rows]
        axes.plot(counts, sizes, "k--", label="depth = qubits")
        axes.set(xlabel="qubits", yscale="log")

    return _panels(draw, r"variance of the gradient of $\langle Z_0\rangle$")


def spectra(record: dict[str, Any]) -> Figure:
    """A panel per ansatz, a line per depth, over frequencies."""

    def draw(name: str, axes: Axes) -> None:
        for one, colour in zip(_of(record, name), COLOURS, strict=False):
            waves = one["spectrum"]["by_frequency"][1:]
            axes.plot(range(1, len(waves) + 1), waves, "o-", color=colour, label=f"depth {one['depth']}")
        axes.set(xlabel="frequency in one input", yscale="log")

    return _panels(draw, "root mean square amplitude")


def states(record: dict[str, Any]) -> Figure:
    """Expressibility and entangling capability over depth; dotted is what Haar states read."""
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, key, label in (
        (left, "expressibility", "divergence from Haar (nats)"),
        (right, "entangling", "entangling capability"),
    ):
        for name, colour in zip(ANSATZE, COLOURS, strict=False):
            found = _of(record, name)
            axes.errorbar(
                [one["depth"] for one in found], [one[key]["value"] for one in found],
                [one[key]["standard_error"] for one in found], fmt="o-", color=colour, label=name,
            )  # fmt: skip
        axes.axhline(found[0][key]["haar"], color="black", linestyle=":", label="Haar")
        axes.set(xlabel="depth", ylabel=label)
        axes.grid(alpha=0.3)
    left.set_yscale("log")
    right.legend(fontsize="small")
    return figure


def _panels(draw: Callable[[str, Axes], None], label: str) -> Figure:
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    for name, axes in zip(ANSATZE, figure.subplots(1, len(ANSATZE), sharey=True), strict=True):
        draw(name, axes)
        axes.set_title(name, fontsize="medium")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel(label)
    figure.axes[0].legend(fontsize="small")
    return figure


def _of(record: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = [one for one in record["portraits"] if one["ansatz"] == name]
    return sorted(found, key=lambda one: one["depth"])


def main() -> None:
    """Measure, store, draw, and print one line per circuit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depths", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draw-only", action="store_true", help="draw what is stored")
    options = parser.parse_args()
    record = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"portraits": []}
    for depth in [] if options.draw_only else options.depths:
        kept = [one for one in record["portraits"] if one["depth"] != depth]
        record = {
            "machine": machine(),
            "depth_of_qubits": record.get("depth_of_qubits")
            or {name: growing_depth(name, options.samples // 20, options.seed) for name in ANSATZE},
            "portraits": kept + measure(depth, options.samples, options.seed),
        }
        write_atomically(RESULTS, json.dumps(record, indent=1) + "\n")
    for one in sorted(record["portraits"], key=lambda one: (one["ansatz"], one["depth"])):
        print(
            f"{one['ansatz']:9} depth {one['depth']}: divergence {one['expressibility']['value']:.4f} "
            f"+- {one['expressibility']['standard_error']:.4f}, entangled {one['entangling']['value']:.3f}, "
            f"gradients x {one['gradients']['decay_per_qubit']:.2f} per qubit"
        )
    for name, draw in (("gradients", gradients), ("spectra", spectra), ("states", states)):
        write_figure(draw(record), FIGURES / f"circuits_{name}.png")


if __name__ == "__main__":
    main()

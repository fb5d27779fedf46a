"""The figures of quantum adapters: their circuits, and how those did in training, layer by layer."""

from __future__ import annotations

import re
import statistics
from typing import TYPE_CHECKING

from qpeft.adapters.qtha import QthaConfig
from qpeft.circuits import Circuit
from qpeft.circuits.drawing import columns, draw_circuit
from qpeft.comparison.circuit_health import ends, health_sentences, ranges
from qpeft.comparison.results import Results
from qpeft.comparison.study import Study
from qpeft.comparison.svg import LIGHT, TEXT, Picture, dress, new_figure, picture, style

if TYPE_CHECKING:
    from matplotlib.artist import Artist


TITLES = {
    "angle_spread": "spread of angles, radians",
    "wrapped": "share wrapped around",
    "variance": "variance of expectations",
    "gradient_ratio": "gradients, circuit / cores",
}
"""The names of `MEASURES`, short enough to stand above half a figure."""


def circuit_pictures(results: Results) -> list[Picture]:
    """Return every circuit of the study, then the health of every method that has one."""
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    drawn = []
    for number, (circuit, methods) in enumerate(circuits_of(results.study)):
        # At its own size: squeezed to the width of the page, the text in its boxes could not be read.
        width = max(columns(circuit.operations), default=0) + 2.5
        figure = new_figure(0.38 * (circuit.num_qubits + 0.4), 0.36 * width)
        draw_circuit(circuit, figure.add_subplot(), colours=LIGHT)
        gates = ", ".join(f"{one.gate_name}({', '.join(map(str, one.qubits))})" for one in circuit.operations)
        whose = " and of ".join(methods)
        drawn.append(
            picture(
                figure, f"circuit{number}",
                f"The circuit of {whose}. x: angles from the data; w: trained angles; a dot is a control.",
                f"Circuit of {circuit.num_qubits} qubits, each read by Z at the end. In time order: {gates}.",
                keep_size=True,
            )
        )  # fmt: skip
    # Four measures over the depth of the model, medians over seeds: where training began and where it ended.
    for number, one in enumerate(results.measured):
        if not any(one.health):
            continue
        figure = new_figure(3.9)
        handles: dict[str, Artist] = {}
        for axes, (measure, title) in zip(figure.subplots(2, 2).flat, TITLES.items(), strict=True):
            dress(axes)
            axes.set_title(title, fontsize=TEXT - 1, color=LIGHT["ink"])
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            # A layer's name holds its depth, "layers.3", and ends on its kind, "q_proj", which gives the series.
            kinds: dict[str, list[tuple[int, float, float]]] = {}
            for layer, seeds in ends(one.health, measure).items():
                first, last = (statistics.median(values) for values in zip(*seeds, strict=True))
                depth = re.search(r"\d+", layer)
                kinds.setdefault(layer.rpartition(".")[2], []).append((int(depth[0]) if depth else 0, first, last))
            for index, (kind, points) in enumerate(kinds.items()):
                places, at_first, at_last = zip(*points, strict=True)
                look = style(index)
                axes.plot(places, at_first, color=look["color"], linewidth=0.8, linestyle=look["linestyle"], alpha=0.6)
                (handles[kind],) = axes.plot(places, at_last, look["marker"], color=look["color"], markersize=3.2)
            values = [value for line in axes.lines for value in line.get_ydata()]
            if not values:
                axes.text(0.5, 0.5, "not trained", ha="center", transform=axes.transAxes, color=LIGHT["soft"])
                axes.set(xticks=[], yticks=[])
            elif 0 < 10 * min(values) < max(values):
                axes.set_yscale("log")
        figure.legend(
            handles.values(), handles, loc="outside lower center", ncols=4, fontsize=TEXT - 1, frameon=False,
            labelcolor=LIGHT["ink"],
        )  # fmt: skip
        over_layers = "; ".join(f"{label} {values}" for label, values in ranges(one.health).items())
        warnings = " ".join(health_sentences(one.method, one.health)) or "No layer gave cause for a warning."
        drawn.append(
            picture(
                figure, f"health{number}",
                f"Health of the circuits of {one.method} over the model's layers. Lines: at first; marks: in the end.",
                f"Over layers, at the end: {over_layers}. {warnings}",
            )
        )  # fmt: skip
    return drawn


def circuits_of(study: Study) -> list[tuple[Circuit, list[str]]]:
    """Return the circuits, each with the methods that have it."""
    found: dict[Circuit, list[str]] = {}
    for method in study.methods:
        config = study.config(method)
        if isinstance(config, QthaConfig) and config.bottleneck in ("circuit", "frozen_circuit"):
            # Methods that differ in something else, such as their start, share one drawing.
            circuit, _ = config.circuit_of(config.rank)
            found.setdefault(circuit, []).append(method)
    return list(found.items())

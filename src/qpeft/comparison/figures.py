"""The figures of a report, as SVG inside the page, each with words for those who cannot see it."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qpeft.adapters.qtha import QthaConfig
from qpeft.circuits import Circuit
from qpeft.circuits.ansatz import ANSATZE
from qpeft.comparison.drawing import columns, draw
from qpeft.comparison.results import Measured, Results
from qpeft.comparison.study import Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C564B")
"""Distinguishable with all common kinds of colour blindness (Okabe and Ito); after them, dashes begin."""
DASHES = ("-", "--", ":", "-.")


@dataclass(frozen=True)
class Picture:
    """`svg`: the drawing. `alt`: what it shows, in words."""

    title: str
    svg: bytes
    alt: str

    @property
    def uri(self) -> str:
        """The drawing as a data URI."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg).decode("ascii")


def pictures(results: Results) -> list[Picture]:
    """Every figure that the results have something for."""
    found = [_curves(results), _frontier(results), _rates(results)] if results.measured else [_rates(results)]
    circuit = circuit_of(results.study)
    return found + ([_circuit(circuit)] if circuit else [])


def circuit_of(study: Study) -> Circuit | None:
    """The circuit of the first method that has one."""
    for method in study.methods:
        config = study.config(method)
        if isinstance(config, QthaConfig) and config.middle in ("circuit", "frozen_circuit"):
            num_qubits = config.qubits_per_circuit(config.rank)
            return ANSATZE[config.ansatz](num_qubits, config.depth, reupload=config.reupload)
    return None


def _curves(results: Results) -> Picture:
    figure, axes = _axes("step", "training loss (nats per token)")
    ends = []
    for number, one in enumerate(results.measured):
        steps, losses = _history(one.histories)
        if len(steps):
            axes.plot(steps, losses.mean(0), label=one.method, **_style(number))
            axes.fill_between(steps, losses.min(0), losses.max(0), color=_style(number)["color"], alpha=0.15)
            ends.append(f"{one.method} {losses.mean(0)[0]:.3f} to {losses.mean(0)[-1]:.3f}")
    if ends:
        axes.legend(fontsize=8)
    alt = f"Training loss over steps, mean over seeds with the range as a band. First to last: {'; '.join(ends)}."
    return Picture("Training loss", _svg(figure), alt)


def _history(histories: Sequence[Sequence[Mapping[str, float]]]) -> tuple[np.ndarray, np.ndarray]:
    """Steps, and training losses of every seed at them, (seeds, steps)."""
    found = [{entry["step"]: entry["loss"] for entry in history if "loss" in entry} for history in histories]
    steps = sorted(set.intersection(*(set(one) for one in found)))
    return np.array(steps), np.array([[one[step] for step in steps] for one in found])


def _frontier(results: Results) -> Picture:
    figure, axes = _axes("trainable parameters", "loss (nats per token)")
    for number, one in enumerate(results.measured):
        spans = [[one.loss.estimate - one.loss.low], [one.loss.high - one.loss.estimate]]
        marker = "osD^vP*X"[number // len(COLOURS) % 8]
        axes.errorbar(
            [one.parameters], [one.loss.estimate], yerr=spans, fmt=marker, capsize=3, color=_style(number)["color"]
        )
        axes.annotate(
            one.method, (one.parameters, one.loss.estimate), xytext=(5, 4), textcoords="offset points", fontsize=8
        )
    best = frontier(results.measured)
    line = [(one.parameters, one.loss.estimate) for one in best]
    axes.plot(*zip(*line, strict=True), color="#999999", linewidth=1, zorder=0, drawstyle="steps-post")
    axes.set_xscale("log")
    axes.margins(x=0.2)
    points = "; ".join(f"{one.method} {one.parameters:,}, {one.loss.estimate:.4f}" for one in results.measured)
    names = ", ".join(one.method for one in best)
    alt = f"Loss against trainable parameters, with 95 % intervals: {points}. Not beaten by any smaller one: {names}."
    return Picture("Parameters against loss", _svg(figure), alt)


def frontier(measured: Sequence[Measured]) -> list[Measured]:
    """The methods that none with as few parameters beats, smallest first."""
    best: list[Measured] = []
    for one in sorted(measured, key=lambda one: (one.parameters, one.loss.estimate)):
        if not best or one.loss.estimate < best[-1].loss.estimate:
            best.append(one)
    return best


def _rates(results: Results) -> Picture:
    figure, axes = _axes("learning rate", "loss on the held-out tenth")
    said = []
    for number, choice in enumerate(results.choices):
        rows = [(rate, [loss for loss in losses if loss is not None]) for rate, losses in choice.losses.items()]
        points = [(rate, float(np.mean(losses)), min(losses), max(losses)) for rate, losses in rows if losses]
        if points:
            rates, means, low, high = (np.array(values) for values in zip(*points, strict=True))
            axes.errorbar(
                rates, means, yerr=[means - low, high - means], label=choice.method, capsize=3, marker="o",
                markersize=4, **_style(number),
            )  # fmt: skip
            said.append(f"{choice.method} " + ", ".join(f"{mean:.4f} at {rate:g}" for rate, mean, _, _ in points))
    axes.set_xscale("log")
    if said:
        axes.legend(fontsize=8)
    alt = f"Loss on the held-out tenth of the training file over learning rates, with the range: {'; '.join(said)}."
    return Picture("Learning rates", _svg(figure), alt)


def _circuit(circuit: Circuit) -> Picture:
    from matplotlib.figure import Figure  # noqa: PLC0415

    width = max(columns(circuit.operations), default=0) + 2.5
    figure = Figure(figsize=(0.34 * width, 0.36 * (circuit.num_qubits + 0.4)), layout="constrained")
    draw(circuit, figure.add_subplot())
    gates = ", ".join(
        f"{operation.gate_name}({', '.join(map(str, operation.qubits))})" for operation in circuit.operations
    )
    alt = f"Circuit of {circuit.num_qubits} qubits, each read by Z at the end. In time order: {gates}."
    return Picture("The circuit: angles from the data on blue, trained ones on orange", _svg(figure), alt)


def _axes(x: str, y: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure  # noqa: PLC0415  (takes a second to import)

    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.add_subplot(xlabel=x, ylabel=y)
    axes.grid(alpha=0.25)
    return figure, axes


def _style(number: int) -> dict[str, Any]:
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": DASHES[number // len(COLOURS) % len(DASHES)],
    }


def _svg(figure: Figure) -> bytes:
    """The same bytes for the same figure: no date, and names of parts that are no random numbers."""
    import matplotlib as mpl  # noqa: PLC0415
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415

    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "qpeft", "svg.fonttype": "path"}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    return buffer.getvalue()

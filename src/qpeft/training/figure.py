"""The figures of a run: losses and learning rate, and the health of its circuits."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qpeft.runs import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEALTH = {
    "angle_spread": "spread of input angles (radians)",
    "wrapped": "share of angles wrapped around",
    "variance": "variance of expectation values",
    "gradient_ratio": "gradients, circuit / tensor cores",
}


def save_loss_curve(history: Sequence[Mapping[str, float]], path: Path, *, title: str) -> None:
    """Draw losses and, below, the learning rate over steps as a PNG file. Raises: OutputError.

    Args:
        history: entries with `step` and `loss` (and `learning_rate`) or `eval_loss`, in nats per token.
        path: the file.
        title: heading of the figure.
    """
    figure = _figure(7, 5)
    losses, rates = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    for axes, key, label, style in (
        (losses, "loss", "training", "-"),
        (losses, "eval_loss", "held out", "o--"),
        (rates, "learning_rate", "learning rate", "-"),
    ):
        points = [(entry["step"], entry[key]) for entry in history if key in entry]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=label)
    losses.set(ylabel="loss (nats per token)", title=title)
    losses.legend()
    rates.set(xlabel="step", ylabel="learning rate")
    for axes in (losses, rates):
        axes.grid(alpha=0.3)
    _write(figure, path)


def save_health(layers: Mapping[str, Mapping[str, Sequence[float | None]]], path: Path, *, title: str) -> None:
    """Draw the health of every layer's circuits over steps as a PNG file, a line each. Raises: OutputError."""
    figure = _figure(9, 6)
    figure.suptitle(title)
    grid = figure.subplots(2, 2, sharex=True).flat
    for axes, (key, label) in zip(grid, HEALTH.items(), strict=True):
        for columns in layers.values():
            values = _ratios(columns) if key == "gradient_ratio" else columns[key]
            points = [point for point in zip(columns["step"], values, strict=True) if point[1] is not None]
            if points:
                axes.plot(*zip(*points, strict=True), linewidth=0.8, alpha=0.7)
        if key in ("variance", "gradient_ratio"):
            axes.set_yscale("symlog", linthresh=1e-7)
        axes.set_title(label, fontsize="medium")
        axes.grid(alpha=0.3)
    figure.supxlabel(f"step; a line for each of {len(layers)} layers")
    _write(figure, path)


def _ratios(columns: Mapping[str, Sequence[float | None]]) -> list[float | None]:
    pairs = zip(columns["circuit_gradient"], columns["core_gradient"], strict=True)
    return [circuit / cores if circuit is not None and cores else None for circuit, cores in pairs]


def _figure(width: float, height: float) -> Figure:
    # The object-oriented interface: pyplot would pick a window system and keep the figure alive.
    from matplotlib.figure import Figure  # noqa: PLC0415

    return Figure(figsize=(width, height), layout="constrained")


def _write(figure: Any, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415

    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    write_atomically(path, buffer.getvalue())

"""The figures of a run: losses and learning rate, and the health of its circuits."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qpeft.runs import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVES = {"loss": ("training", "-"), "eval_loss": ("held out", "--"), "learning_rate": ("learning rate", "-")}
"""Keys of a history with their label and their line."""
HEALTH = {
    "angle_spread": "spread of input angles (radians)",
    "wrapped": "share of angles wrapped around",
    "variance": "variance of expectation values",
    "gradient_ratio": "gradients, circuit / tensor cores",
}

FEW = 30
"""Points of a line up to which each of them is marked: a single one would else not be seen at all."""


def save_loss_curve(
    history: Sequence[Mapping[str, float]], path: Path, *, title: str, ends: Mapping[int, float] | None = None
) -> None:
    """Draw losses and, below, the learning rate over steps as a PNG file. Raises: OutputError.

    Args:
        history: entries with `step` and `loss` (and `learning_rate`) or `eval_loss`, in nats per token.
        path: the file.
        title: heading of the figure.
        ends: held-out losses before and after training, by step, where they were measured.
    """
    curves = {key: {entry["step"]: entry[key] for entry in history if key in entry} for key in CURVES}
    curves["eval_loss"] = dict(sorted([*curves["eval_loss"].items(), *(ends or {}).items()]))
    has_rates = bool(curves["learning_rate"])
    figure = _figure(7, 5 if has_rates else 4)
    heights = (3, 1)[: 1 + has_rates]
    panels = list(figure.subplots(1 + has_rates, 1, sharex=True, squeeze=False, height_ratios=heights).flat)
    for key, (label, style) in CURVES.items():
        if curves[key]:
            panel = panels[-1 if key == "learning_rate" else 0]
            _draw(panel, curves[key].items(), label=label, linestyle=style, held=key == "eval_loss")
    panels[0].set(ylabel="loss (nats per token)", title=title)
    if curves["loss"] or curves["eval_loss"]:
        panels[0].legend()
    else:
        panels[0].text(0.5, 0.5, "no losses were logged", ha="center", transform=panels[0].transAxes)
    if has_rates:
        panels[1].set(ylabel="learning rate")
    panels[-1].set(xlabel="step")
    _whole_steps(panels)
    _write(figure, path)


def save_health(layers: Mapping[str, Mapping[str, Sequence[float | None]]], path: Path, *, title: str) -> None:
    """Draw the health of every layer's circuits over steps as a PNG file, a line each. Raises: OutputError.

    Args:
        layers: measured values by layer and name, with "step" among the names.
        path: the file.
        title: heading of the figure.
    """
    curves: dict[str, list[list[tuple[float, float]]]] = {key: [] for key in HEALTH}
    for columns in layers.values():
        gradients = zip(columns["circuit_gradient"], columns["core_gradient"], strict=True)
        ratios = [circuit / cores if circuit is not None and cores else None for circuit, cores in gradients]
        for key in HEALTH:
            pairs = zip(columns["step"], ratios if key == "gradient_ratio" else columns[key], strict=True)
            curves[key].append([(step, value) for step, value in pairs if step is not None and value is not None])
    # What was never measured has no panel: a short run may end before gradients can be compared.
    shown = [key for key in HEALTH if any(curves[key])] or list(HEALTH)[:1]
    rows, width = -(-len(shown) // 2), min(2, len(shown))
    figure = _figure(4.5 * width, 3 * rows)
    figure.suptitle(title)
    grid = list(figure.subplots(rows, width, sharex=True, squeeze=False).flat)
    for axes in grid[len(shown) :]:
        axes.remove()
    for axes, key in zip(grid, shown, strict=False):
        for points in filter(None, curves[key]):
            _draw(axes, points, linewidth=0.8, alpha=0.7)
        if key in ("variance", "gradient_ratio"):
            # Both fall over many orders of magnitude when circuits go wrong, and may reach zero.
            axes.set_yscale("symlog", linthresh=1e-7)
        axes.set_title(HEALTH[key], fontsize="medium")
    _whole_steps(figure.axes)
    figure.supxlabel(f"step; a line for each of {len(layers)} layers")
    _write(figure, path)


def _draw(axes: Axes, points: Iterable[tuple[float, float]], *, held: bool = False, **look: Any) -> None:
    # Every point of a few has a mark, and every held-out loss: their line alone may be too short to be seen.
    points = list(points)
    marked = held or len(points) <= FEW
    axes.plot(*zip(*points, strict=True), marker="o" if marked else "", markersize=6 if held else 4, **look)


def _whole_steps(panels: Iterable[Axes]) -> None:
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    for axes in panels:
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _figure(width: float, height: float) -> Figure:
    # The object-oriented interface: pyplot would pick a window system and keep the figure alive.
    from matplotlib.figure import Figure  # noqa: PLC0415

    return Figure(figsize=(width, height), layout="constrained")


def _write(figure: Any, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415

    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    write_atomically(path, buffer.getvalue())

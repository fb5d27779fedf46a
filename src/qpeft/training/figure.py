"""The loss curve of a run."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from qpeft.runs import write_atomically


def save_loss_curve(history: Sequence[Mapping[str, float]], path: Path, *, title: str) -> None:
    """Draw training and held-out loss over steps as a PNG file. Raises: OutputError if it cannot be written.

    Args:
        history: entries with `step` and `loss` or `eval_loss`, in nats per token.
        path: the file.
        title: heading of the figure.
    """
    # The object-oriented interface: pyplot would pick a window system and keep the figure alive.
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for key, label, style in (("loss", "training", "-"), ("eval_loss", "held out", "o--")):
        points = [(entry["step"], entry[key]) for entry in history if key in entry]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=label)
    axes.set(xlabel="step", ylabel="loss (nats per token)", title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    write_atomically(path, buffer.getvalue())

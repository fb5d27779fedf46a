"""Portraits of circuits as one figure."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qpeft.analysis.portrait import Portrait
from qpeft.errors import OutputError
from qpeft.runs import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Distinguishable with all common kinds of colour blindness (Okabe and Ito)."""
FORMATS = (".svg", ".png")


def save_portraits(portraits: Sequence[Portrait], path: Path) -> None:
    """Draw states, gradients and spectra of all, and of each what depends on what, as SVG or PNG.

    Raises: OutputError for another ending of the name, or if the file cannot be written.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415  (takes a second to import)

    figure = Figure(figsize=(11, 7), layout="constrained")
    figure.suptitle(f"Circuits of {portraits[0].num_qubits} qubits, depth {portraits[0].depth}, at random angles")
    count = len(portraits)
    grid = figure.add_gridspec(2, 3 * count)
    for place, draw in enumerate((_draw_states, draw_gradients, draw_frequencies)):
        draw(portraits, figure.add_subplot(grid[0, place * count : (place + 1) * count]))
    for place, one in enumerate(portraits):
        _draw_dependence(one, figure.add_subplot(grid[1, place * 3 : place * 3 + 3]))
    write_figure(figure, path)


def check_format(path: Path) -> None:
    """Raises: OutputError if figures are not written under such a name."""
    if path.suffix.lower() not in FORMATS:
        raise OutputError(f"A figure is written as {' or '.join(FORMATS)}; got {str(path)!r}.")


def write_figure(figure: Figure, path: Path) -> None:
    """The same bytes for the same figure: no date, no random names. Raises: OutputError as `save_portraits`."""
    import matplotlib as mpl  # noqa: PLC0415

    check_format(path)
    kind, buffer = path.suffix.lower()[1:], io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "qpeft"}):
        figure.savefig(buffer, format=kind, metadata={"Date": None} if kind == "svg" else None)
    write_atomically(path, buffer.getvalue())


def draw_gradients(portraits: Sequence[Portrait], axes: Axes) -> None:
    """Over the number of qubits, at random angles and, dashed, at those of fresh adapters."""
    for one, colour in zip(portraits, _colours(portraits), strict=True):
        found = one.gradients
        axes.plot(found.num_qubits, [size.first for size in found.uniform], "o-", color=colour, label=one.ansatz)
        axes.plot(found.num_qubits, [size.first for size in found.start], "--", color=colour)
    axes.set(xlabel="qubits", ylabel=r"mean square gradient of $\langle Z_0\rangle$", yscale="log")
    axes.set_title("Gradients (dashed: fresh adapter)", fontsize="medium")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def draw_frequencies(portraits: Sequence[Portrait], axes: Axes) -> None:
    """Mean amplitude of waves of every frequency in one input, side by side."""
    width = 0.8 / len(portraits)
    for place, (one, colour) in enumerate(zip(portraits, _colours(portraits), strict=True)):
        heights = one.spectrum.by_frequency
        positions = [frequency + (place - (len(portraits) - 1) / 2) * width for frequency in range(len(heights))]
        axes.bar(positions, heights, width, color=colour, label=one.ansatz)
    axes.set(xlabel="frequency in one input", ylabel="root mean square amplitude")
    _mark_whole_numbers(axes.xaxis)
    axes.set_title("Fourier spectrum", fontsize="medium")
    axes.grid(alpha=0.3, axis="y")


def _draw_states(portraits: Sequence[Portrait], axes: Axes) -> None:
    for one, colour in zip(portraits, _colours(portraits), strict=True):
        divergence, entangled = one.expressibility, one.entangling
        axes.errorbar(
            divergence.value, entangled.value, xerr=divergence.standard_error, yerr=entangled.standard_error, fmt="o",
            color=colour, label=one.ansatz,
        )  # fmt: skip
    even = portraits[0]
    axes.plot(even.expressibility.haar, even.entangling.haar, "*", color="black", markersize=11, label="Haar")
    axes.set(xlabel="divergence from Haar (nats)", ylabel="entangling capability", xscale="log", ylim=(-0.05, 1.05))
    axes.set_title("States reached", fontsize="medium")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def _draw_dependence(one: Portrait, axes: Axes) -> None:
    picture = axes.imshow(one.spectrum.dependence, cmap="Blues", vmin=0)
    axes.set(xlabel="input", ylabel="value read")
    _mark_whole_numbers(axes.xaxis, axes.yaxis)
    axes.set_title(f"{one.ansatz}: spread of a value with one input", fontsize="medium")
    axes.figure.colorbar(picture, ax=axes, shrink=0.8)


def _mark_whole_numbers(*axes: Axis) -> None:
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    for axis in axes:
        axis.set_major_locator(MaxNLocator(integer=True))


def _colours(portraits: Sequence[Portrait]) -> list[str]:
    return [COLOURS[place % len(COLOURS)] for place in range(len(portraits))]

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
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Distinguishable with all common kinds of colour blindness (Okabe and Ito)."""
FORMATS = (".svg", ".png")


def check_format(path: Path) -> None:
    """Raises: OutputError if figures are not written under such a name."""
    if path.suffix.lower() not in FORMATS:
        raise OutputError(f"A figure is written as {' or '.join(FORMATS)}; got {str(path)!r}.")


def write_figure(figure: Figure, path: Path) -> None:
    """Write the same bytes for the same figure: no date, no random names. Raises: OutputError as `save_portraits`."""
    import matplotlib as mpl  # noqa: PLC0415

    check_format(path)
    kind, buffer = path.suffix.lower()[1:], io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "qpeft"}):
        figure.savefig(buffer, format=kind, metadata={"Date": None} if kind == "svg" else None)
    write_atomically(path, buffer.getvalue())


def save_portraits(portraits: Sequence[Portrait], path: Path) -> None:
    """Draw states, gradients and spectra of all, and of each what depends on what, as SVG or PNG.

    Raises: OutputError for another ending of the name, or if the file cannot be written.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415  (takes a second to import)
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    figure, count = Figure(figsize=(11, 7), layout="constrained"), len(portraits)
    figure.suptitle(f"Circuits of {portraits[0].num_qubits} qubits, depth {portraits[0].depth}, at random angles")
    # Three figures of equal width above, one for each portrait below.
    grid = figure.add_gridspec(2, 3 * count)
    states, gradients, frequencies = (
        figure.add_subplot(grid[0, place * count : (place + 1) * count]) for place in range(3)
    )
    width = 0.8 / count
    for place, one in enumerate(portraits):
        colour = COLOURS[place % len(COLOURS)]
        divergence, entangled, found = one.expressibility, one.entangling, one.gradients
        states.errorbar(
            divergence.value, entangled.value, xerr=divergence.standard_error, yerr=entangled.standard_error, fmt="o",
            color=colour, label=one.ansatz,
        )  # fmt: skip
        gradients.plot(found.num_qubits, [size.first for size in found.uniform], "o-", color=colour, label=one.ansatz)
        gradients.plot(found.num_qubits, [size.first for size in found.start], "--", color=colour)
        heights = one.spectrum.by_frequency
        # Bars of one frequency stand side by side, around their number.
        positions = [frequency + (place - (count - 1) / 2) * width for frequency in range(len(heights))]
        frequencies.bar(positions, heights, width, color=colour, label=one.ansatz)

        below = figure.add_subplot(grid[1, place * 3 : place * 3 + 3])
        picture = below.imshow(one.spectrum.dependence, cmap="Blues", vmin=0)
        below.set(xlabel="input", ylabel="value read")
        for axis in (below.xaxis, below.yaxis):
            axis.set_major_locator(MaxNLocator(integer=True))
        below.set_title(f"{one.ansatz}: spread of a value with one input", fontsize="medium")
        figure.colorbar(picture, ax=below, shrink=0.8)
    # Evenly drawn states are the same for all circuits of one size.
    even = portraits[0]
    states.plot(even.expressibility.haar, even.entangling.haar, "*", color="black", markersize=11, label="Haar")
    states.set(xlabel="divergence from Haar (nats)", ylabel="entangling capability", xscale="log", ylim=(-0.05, 1.05))
    gradients.set(xlabel="qubits", ylabel=r"mean square gradient of $\langle Z_0\rangle$", yscale="log")
    frequencies.set(xlabel="frequency in one input", ylabel="root mean square amplitude")
    frequencies.xaxis.set_major_locator(MaxNLocator(integer=True))
    titles = ("States reached", "Gradients (dashed: fresh adapter)", "Fourier spectrum")
    for axes, title in zip((states, gradients, frequencies), titles, strict=True):
        axes.set_title(title, fontsize="medium")
        axes.grid(alpha=0.3, axis="y" if axes is frequencies else "both")
        if axes is not frequencies:
            axes.legend(fontsize="small")
    write_figure(figure, path)

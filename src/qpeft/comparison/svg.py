"""Drawings for a page: in its colours, light or dark, and with text that is text."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LIGHT = {
    "paper": "#ffffff", "ink": "#1b1f24", "soft": "#57606a", "line": "#d5dae0", "tint": "#f3f6f9", "accent": "#0b5fa5",
    "good": "#1a7f4b", "bad": "#b4351e", "input": "#cfe8f7", "weight": "#fbe3c0", "fixed": "#eeeeee",
    "s0": "#0b5fa5", "s1": "#c4490a", "s2": "#00795a", "s3": "#a6418a", "s4": "#8a6100", "s5": "#1b7a8c",
    "s6": "#3b3b3b", "s7": "#8c3b4a",
}  # fmt: skip
"""Colours of the page on white: text, lines, surfaces, gates of circuits, and a series for each method.

Figures are drawn with these. The page's style sheet finds them in the drawing and puts its own in their place.
"""
DARK = {
    "paper": "#14181d", "ink": "#e8ebee", "soft": "#a4aeb9", "line": "#3a434d", "tint": "#1e242b", "accent": "#6db3f2",
    "good": "#58c98b", "bad": "#ff8f75", "input": "#1f4a66", "weight": "#6b4a12", "fixed": "#3a434d",
    "s0": "#6db3f2", "s1": "#ff9a5c", "s2": "#4cc9a0", "s3": "#e58bc8", "s4": "#e0b94a", "s5": "#8fd3f5",
    "s6": "#d0d0d0", "s7": "#f08a9b",
}  # fmt: skip
"""The same names for a dark page."""
NUM_SERIES = sum(name[1:].isdigit() for name in LIGHT)
DASHES = ("-", "--", "-.", ":")
MARKERS = "osD^vP*X"
WIDTH = 4.4
"""Width of every figure, inches: text of 9 points is then still readable at the width of a telephone."""
TEXT = 9
LABEL_WIDTH = 17
"""Characters of a line in a label."""


@dataclass(frozen=True)
class Picture:
    """`svg`: the element. `alt`: what it shows, in words.

    `natural`: width in points below which it cannot be read, or None.
    """

    title: str
    svg: str
    alt: str
    natural: float | None = None


def picture(figure: Figure, name: str, title: str, alt: str, *, keep_size: bool = False) -> Picture:
    """Return a drawing with its words: the same text for the same figure.

    Args:
        figure: with everything drawn.
        name: no two figures of a page have the same, since all ids in the drawing are made of it.
        title: the caption.
        alt: what it shows, for those who cannot see it.
        keep_size: scroll it where there is no room for it, rather than make it smaller.
    """
    import matplotlib as mpl  # noqa: PLC0415
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415
    from matplotlib.text import Annotation  # noqa: PLC0415

    # Ids and their salt come from the name, so that a figure drawn again is the same to the byte.
    figure.patch.set_alpha(0)
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # here; the reader's fonts draw the text
        figure.draw_without_rendering()  # makes the ticks, which are to be numbered too, and the layout
        figure.set_layout_engine("none")  # so it need not be found again, which takes most of the time
        arrows = [one.arrow_patch for one in figure.findobj(Annotation) if one.arrow_patch is not None]
        for number, artist in enumerate([*figure.findobj(), *arrows]):
            artist.set_gid(f"{name}-{number}")
        FigureCanvasSVG(figure).print_svg(buffer, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = buffer.getvalue()
    # Without the lines before it, which would say that the page is XML.
    return Picture(title, text[text.index("<svg") :], alt, 72 * figure.get_figwidth() if keep_size else None)


def new_axes(height: float, x: str, y: str) -> tuple[Figure, Axes]:
    """Return an empty drawing with its axes.

    Args:
        height: inches.
        x, y: names of the axes.
    """
    figure = new_figure(height)
    axes = figure.add_subplot(xlabel=x, ylabel=y)
    dress(axes)
    return figure, axes


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """Return an empty drawing of this size, inches."""
    # The object-oriented interface: pyplot would pick a window system and keep the figure alive.
    from matplotlib.figure import Figure  # noqa: PLC0415  (takes a second to import)

    return Figure(figsize=(width, height), layout="constrained")


def dress(axes: Axes) -> None:
    """Give a pair of axes the page's colours and sizes."""
    axes.set_facecolor("none")
    axes.grid(color=LIGHT["line"], linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", colors=LIGHT["soft"], labelsize=TEXT - 1, length=0)
    for side, spine in axes.spines.items():
        spine.set(visible=side in ("left", "bottom"), color=LIGHT["line"])
    for label in (axes.xaxis.label, axes.yaxis.label, axes.title):
        label.set(color=LIGHT["ink"], fontsize=TEXT)


def style(number: int) -> dict[str, Any]:
    """Return colour, dashes and marker of the method of this number; no two of the first 32 share all three."""
    return {
        "color": LIGHT[f"s{number % NUM_SERIES}"],
        "linestyle": DASHES[(number + number // NUM_SERIES) % len(DASHES)],
        "marker": MARKERS[number % len(MARKERS)],
        "markersize": 4.5,
    }


def wrapped(name: str, width: int = LABEL_WIDTH) -> str:
    """Return a name in three lines at most, in which a dollar is a dollar and does not begin a formula."""
    return "\n".join(textwrap.wrap(name, width, max_lines=3, placeholder="\N{HORIZONTAL ELLIPSIS}")).replace("$", r"\$")


def height_for(names: Iterable[str], at_least: float) -> float:
    """Return the height of a figure, inches, in which `label_ends` has room for these names."""
    return max(at_least, 0.6 + 0.17 * sum(wrapped(name).count("\n") + 1 for name in names))


def label_ends(axes: Axes, ends: Sequence[tuple[str, float, float, str]]) -> None:
    """Write names in a column right of the axes, each with a thin line to its point, so that none hides another.

    Args:
        axes: with everything drawn that its limits depend on.
        ends: name, x, y and colour of each.
    """
    axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())
    names = [wrapped(name) for name, *_ in ends]
    # Now that the limits are fixed, a point of the data has one place in the axes.
    to_axes = axes.transData + axes.transAxes.inverted()
    places = [float(to_axes.transform((x, y))[1]) for _, x, y, _ in ends]
    line = (TEXT + 1) / 72 * axes.figure.dpi / (0.8 * axes.figure.bbox.height)  # of the height of the axes
    tall = [line * (name.count("\n") + 1.2) for name in names]
    # Text stands in axes coordinates, where it was spread; its line leads to a point of the data.
    for name, (_, x, y, colour), place in zip(names, ends, spread(places, tall), strict=True):
        axes.annotate(
            name, (x, y), (1.04, place), textcoords="axes fraction", fontsize=TEXT - 1, color=colour, va="center",
            arrowprops={"arrowstyle": "-", "color": LIGHT["line"], "linewidth": 0.8, "shrinkA": 0, "shrinkB": 3},
        )  # fmt: skip


def spread(places: Sequence[float], tall: Sequence[float]) -> list[float]:
    """Return centres of labels that do not overlap, near the wanted ones and in their order.

    Args:
        places: wanted centres; 0 is the lower end of the axes, 1 the upper.
        tall: height of each label, in the same unit. Too many begin at the lower end.
    """
    order = sorted(range(len(places)), key=places.__getitem__)
    found = list(places)
    # Up past the label below, then down from the top past the label above.
    lowest = 0.0
    for index in order:
        found[index] = max(found[index], lowest + tall[index] / 2)
        lowest = found[index] + tall[index] / 2
    highest = max(1.0, sum(tall))
    for index in reversed(order):
        found[index] = min(found[index], highest - tall[index] / 2)
        highest = found[index] - tall[index] / 2
    return found

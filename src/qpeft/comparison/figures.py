"""The figures of a report, each with words for those who cannot see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from qpeft.comparison.results import Measured, Results
from qpeft.comparison.summary_text import signed
from qpeft.comparison.svg import (
    LIGHT,
    TEXT,
    Picture,
    dress,
    height_for,
    label_ends,
    new_axes,
    new_figure,
    picture,
    style,
    wrapped,
)
from qpeft.evaluation.statistics import Array

POINTS = 80
"""Of a curve; longer ones are drawn as means of neighbouring steps."""
IN_ONE = 4
"""This many curves share their axes; more get axes of their own."""


def differences(results: Results) -> Picture | None:
    """Draw every method's difference from the reference with its interval; None if there is nothing to compare."""
    compared = [(one, one.against) for one in results.measured if one.against is not None]
    if not compared:
        return None
    reference, margin = results.study.reference, results.study.margin
    height = 0.95 + sum(0.17 * max(2, wrapped(one.method).count("\n") + 1) for one, _ in compared)
    figure, axes = new_axes(height, "← better\u2003difference of loss, nats per token\u2003worse →", "")
    for row, (_, against) in enumerate(compared):
        loss = against.loss
        axes.plot([loss.low, loss.high], [row, row], color=LIGHT["ink"], linewidth=1.6)
        axes.plot(loss.per_seed, [row] * len(loss.per_seed), "|", color=LIGHT["soft"], markersize=9)
        axes.plot([loss.estimate], [row], "o", color=LIGHT["accent"], markersize=6)
        axes.annotate(
            against.verdict,
            (1.02, row),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=TEXT - 1,
            color=LIGHT["ink"],
        )
    # To the right of the dashed line a method is worse by more than the margin.
    axes.axvline(0, color=LIGHT["ink"], linewidth=1)
    axes.axvline(margin, color=LIGHT["soft"], linewidth=1, linestyle="--")
    axes.set_yticks(range(len(compared)), [wrapped(one.method) for one, _ in compared])
    axes.set_ylim(len(compared) - 0.4, -0.6)
    said = "; ".join(f"{one.method} {signed(against.loss)}, {against.verdict}" for one, against in compared)
    return picture(
        figure, "differences",
        f"Every method minus {reference}, which is the line at zero. Dots: differences; bars: 95 % intervals; strokes: "
        f"seeds; dashed: the margin of {margin:g}.",
        f"Differences of loss from {reference} with 95 % intervals, below zero is better: {said}.",
    )  # fmt: skip


def pictures(results: Results) -> list[Picture]:
    """Draw how training went, and what every parameter buys; nothing if nothing was measured."""
    found = [curves(results), frontier_picture(results)] if results.measured else []
    return [picture for picture in found if picture is not None]


def curves(results: Results) -> Picture | None:
    """Draw training losses, mean over seeds with the range as a band; None if none were logged."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter  # noqa: PLC0415

    drawn = []
    for number, one in enumerate(results.measured):
        steps, losses = _by_step(one.histories, "loss")
        # More points than that are noise on a figure of this width, and a large file: means of neighbouring steps.
        parts = np.array_split(np.arange(len(steps)), min(len(steps), POINTS)) if len(steps) else []
        if parts:
            means = np.stack([losses[:, part].mean(1) for part in parts], 1)
            drawn.append((number, one, np.array([steps[part[-1]] for part in parts]), means))
    if not drawn:
        return None
    label, is_grid = "training loss (nats per token)", len(drawn) > IN_ONE
    if is_grid:
        # Axes for each method, with the reference's curve in all of them.
        _, reference, steps, losses = next((row for row in drawn if row[1].method == results.study.reference), drawn[0])
        rows = -(-len(drawn) // 2)
        figure = new_figure(1.55 * rows + 0.3)
        panels = list(figure.subplots(rows, 2, sharex=True, sharey=True, squeeze=False).flat)
        for axes in panels[len(drawn) :]:
            axes.set_visible(False)
        for axes, (_, one, _, _) in zip(panels, drawn, strict=False):
            dress(axes)
            axes.plot(steps, losses.mean(0), color=LIGHT["soft"], linewidth=0.8, linestyle=":")
            axes.set_title(wrapped(one.method, 30), fontsize=TEXT, color=LIGHT["ink"])
        figure.supxlabel(wrapped(f"step (dotted: {reference.method})", 60), fontsize=TEXT, color=LIGHT["ink"])
        figure.supylabel(label, fontsize=TEXT, color=LIGHT["ink"])
    else:
        figure, axes = new_axes(height_for((one.method for _, one, _, _ in drawn), 3.2), "step", label)
        panels = [axes] * len(drawn)

    at_ends = set()
    for axes, (number, one, steps, losses) in zip(panels, drawn, strict=False):
        look = style(number)
        ends, held_out = _by_step(one.histories, "held_out")
        at_ends |= set((ends == 0).tolist())
        if len(ends):
            hollow = {"linestyle": "none", "markerfacecolor": "none", "markersize": 6, "zorder": 3}
            axes.plot(ends, held_out.mean(0), **(look | hollow))
        axes.plot(steps, losses.mean(0), markevery=max(1, len(steps) // 8), linewidth=1.4, **look)
        axes.fill_between(steps, losses.min(0), losses.max(0), color=look["color"], alpha=0.18, linewidth=0)
    values, axes = np.concatenate([losses.ravel() for _, _, _, losses in drawn]), panels[0]
    # Where losses fall to less than half, their ends would be one line on an axis that is not logarithmic.
    if 0 < 2 * values.min() < values.max():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    if not is_grid:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        # After the scale has been chosen: labels stand where the ends of the curves are then.
        label_ends(
            axes,
            [(one.method, steps[-1], loss.mean(0)[-1], style(number)["color"]) for number, one, steps, loss in drawn],
        )
    when = " and ".join(word for word, at_start in (("before", True), ("after", False)) if at_start in at_ends)
    held_out_note = f" Hollow: loss on the held-out tenth {when} training." if when else ""
    band = "mean over seeds with their range as a band" if len(results.study.seeds) > 1 else "of one seed"
    said = [f"{one.method} {losses.mean(0)[0]:.3f} to {losses.mean(0)[-1]:.3f}" for _, one, _, losses in drawn]
    return picture(
        figure, "curves", f"Training loss, {band}.{held_out_note}",
        f"Training loss over steps, {band}. First to last: {'; '.join(said)}.",
    )  # fmt: skip


def _by_step(histories: Sequence[Sequence[Mapping[str, float]]], name: str) -> tuple[Array, Array]:
    """Return steps, and the values of this name of every seed at them, (seeds, steps)."""
    found = [{entry["step"]: entry[name] for entry in history if name in entry} for history in histories]
    # Runs that stopped early are shorter; a mean over seeds needs all of them.
    steps = sorted(set.intersection(*map(set, found))) if found else []
    return np.array(steps, dtype=float), np.array([[one[step] for step in steps] for one in found], dtype=float)


def frontier_picture(results: Results) -> Picture:
    """Draw loss against trainable parameters."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator  # noqa: PLC0415

    measured = results.measured
    figure, axes = new_axes(
        height_for((one.method for one in measured), 2.9), "trainable parameters", "loss (nats per token)"
    )
    for number, one in enumerate(measured):
        spans = [[one.loss.estimate - one.loss.low], [one.loss.high - one.loss.estimate]]
        look = style(number) | {"linestyle": "none", "markersize": 6}
        axes.errorbar([one.parameters], [one.loss.estimate], yerr=spans, capsize=2, linewidth=1, **look)
    # Drawn in steps: between two methods nobody knows of a better one than the smaller.
    best = frontier(measured)
    line = [(one.parameters, one.loss.estimate) for one in best]
    axes.plot(
        *zip(*line, strict=True), color=LIGHT["soft"], linewidth=1, linestyle=":", zorder=0, drawstyle="steps-post"
    )
    axes.set_xscale("log")
    axes.margins(x=0.12)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.xaxis.set_minor_locator(NullLocator())
    label_ends(
        axes,
        [
            (one.method, one.parameters, one.loss.estimate, style(number)["color"])
            for number, one in enumerate(measured)
        ],
    )
    points = "; ".join(f"{one.method} {one.parameters:,}, {one.loss.estimate:.4f}" for one in measured)
    names = ", ".join(one.method for one in best)
    return picture(
        figure, "frontier", "Parameters against loss, with 95 % intervals. Dotted: not beaten by any smaller method.",
        f"Loss against trainable parameters, with 95 % intervals: {points}. Not beaten by any smaller one: {names}.",
    )  # fmt: skip


def short(value: float) -> str:
    """Return a count in about four characters: 115k, 2.5M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:g}"


def frontier(measured: Sequence[Measured]) -> list[Measured]:
    """Return the methods that no method with as few parameters beats, smallest first."""
    best: list[Measured] = []
    for one in sorted(measured, key=lambda one: (one.parameters, one.loss.estimate)):
        if not best or one.loss.estimate < best[-1].loss.estimate:
            best.append(one)
    return best


def rates_picture(results: Results) -> Picture | None:
    """Draw the losses that learning rates were chosen by; None if no run has one."""
    if not any(loss is not None for choice in results.choices for losses in choice.losses.values() for loss in losses):
        return None
    from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter  # noqa: PLC0415

    figure, axes = new_axes(
        height_for((choice.method for choice in results.choices), 2.9), "learning rate", "loss on the held-out tenth"
    )
    said, labels, tried = [], [], set()
    for number, choice in enumerate(results.choices):
        rows = [(rate, [loss for loss in losses if loss is not None]) for rate, losses in choice.losses.items()]
        points = [(rate, float(np.mean(losses)), min(losses), max(losses)) for rate, losses in rows if losses]
        if points:
            grid, means, low, high = (np.array(values) for values in zip(*points, strict=True))
            axes.errorbar(grid, means, yerr=[means - low, high - means], capsize=2, linewidth=1, **style(number))
            labels.append((choice.method, grid[-1], means[-1], style(number)["color"]))
            tried |= set(grid.tolist())
            said.append(f"{choice.method} " + ", ".join(f"{mean:.4f} at {rate:g}" for rate, mean, _, _ in points))
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(sorted(tried)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    label_ends(axes, labels)
    return picture(
        figure, "rates", "Learning rates: mean over seeds, with their range.",
        f"Loss on the held-out tenth of the training file over learning rates, with the range: {'; '.join(said)}.",
    )  # fmt: skip

"""The tables of a report, text in every cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qpeft.comparison import summary_text
from qpeft.comparison.circuit_health import MEASURES, ends, ranges, warned_of
from qpeft.comparison.results import Results


@dataclass(frozen=True)
class Table:
    """`rows`: a cell for every column, the first of which names the row. A shorter row ends with a reason."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def losses(results: Results) -> Table:
    """Return every method with its loss and its difference from the reference; those without a result say why."""
    reference = results.of(results.study.reference)
    has_answers = any(one.right is not None for one in results.measured)
    columns = (
        "method", "verdict", "trainable parameters", "loss", f"minus {results.study.reference}", "corrected p",
        "seeds where worse", "could be seen", *(["right answers"] if has_answers else []),
    )  # fmt: skip
    rows: dict[str, tuple[str, ...]] = {
        method: (method, summary_text.MISSING, f"no result: {reason}") for method, reason in results.missing.items()
    }
    for one in results.measured:
        against = one.against
        share = "" if reference is None else f" ({one.parameters / reference.parameters:.0%})"
        # Without the reference's runs a method stands by itself, and its loss is all that is known.
        if against is None:
            verdict, compared = "reference" if one is reference else "not compared", ("", "", "", "")
        else:
            verdict = against.verdict
            compared = (
                summary_text.signed(against.loss),
                summary_text.p_value(against.p),
                f"{against.worse_seeds} of {len(against.loss.per_seed)}",
                f"{against.loss.detectable:.4f}",
            )
        answers = "" if one.exact_match is None else f"{one.exact_match:.1%}"
        loss = summary_text.interval(one.loss)
        row = (one.method, verdict, f"{one.parameters:,}{share}", loss, *compared, answers)
        rows[one.method] = row[: len(columns)]
    ordered = tuple(rows[method] for method in results.study.methods if method in rows)
    return Table("Loss of every method and its difference from the reference", columns, ordered)


def contrasts(results: Results) -> Table:
    """Return the pairs without the reference that the study compares."""
    rows = tuple(
        (
            f"{one.method} minus {one.other}",
            one.against.verdict,
            summary_text.signed(one.against.loss),
            summary_text.p_value(one.against.p),
            f"{one.against.worse_seeds} of {len(one.against.loss.per_seed)}",
            f"{one.against.loss.detectable:.4f}",
        )
        for one in results.contrasts
    )
    columns = ("methods", "verdict", "difference of loss", "corrected p", "seeds where worse", "could be seen")
    return Table("Methods compared with each other", columns, rows)


def answers(results: Results) -> Table:
    """Return every metric of the answers, where there are several; one alone stands beside the loss."""
    base = results.base_metrics if len(results.base_metrics) > 1 else {}
    rows = [("without an adapter", title, f"{100 * value:.1f}", "", "") for title, value in base.items()]
    for one in results.measured:
        if len(one.graded) < 2:
            continue
        rows += [(one.method, title, f"{100 * value:.1f}", "", "") for title, value in one.overall.items()]
        for metric in one.graded:
            value = summary_text.interval(metric.value.times(100), 1)
            # Where all answers are alike, nothing varies that an interval could come from.
            if metric.value.low == metric.value.high:
                value = f"{100 * metric.value.estimate:.1f}, all alike"
            against = "reference" if metric.against is None else summary_text.signed(metric.against.times(100), 1)
            p = "" if metric.p is None else summary_text.p_value(metric.p)
            rows.append((one.method, metric.title, value, against, p))
    columns = ("method", "metric", "value", f"minus {results.study.reference}", "corrected p")
    return Table("Answers, in percent", columns, tuple(rows))


def costs(results: Results) -> Table:
    """Return what every method costs."""
    # Forgetting: by how much the loss on text that nobody trains for has risen.
    base = results.base_neutral
    rows = tuple(
        (
            one.method,
            f"{one.parameters:,}",
            f"{one.adapter_bytes / 1024:,.0f} KiB",
            "not known" if one.seconds_per_step is None else f"{one.seconds_per_step:.2f} s",
            f"{one.peak_memory / 2**20:,.0f} MiB",
            "not known" if base is None else f"{one.neutral - base:+.4f}",
            one.device,
        )
        for one in results.measured
    )
    columns = ("method", "trainable parameters", "adapter file", "time per step", "peak memory", "forgetting", "device")
    return Table("Costs of every method", columns, rows)


def ablations(results: Results) -> Table:
    """Return what spoiling the output of the bottleneck does to methods that were asked about it."""
    rows = []
    for one in results.measured:
        for name, loss in one.ablations.items():
            effect = (
                "makes it worse" if loss.low > 0 else "makes it better" if loss.high < 0 else "changes nothing seen"
            )
            rows.append((one.method, name, effect, summary_text.signed(loss)))
    return Table(
        "Loss with the output of the bottleneck spoilt", ("method", "change", "effect", "loss rises by"), tuple(rows)
    )


def health(results: Results) -> Table:
    """Return how the circuits of every method did, over all layers and seeds, at the end of training."""
    rows = tuple(
        (
            one.method,
            # Every layer with a circuit has a variance, so these are all layers.
            f"{len(warned_of(one.health))} of {len(ends(one.health, 'variance'))}",
            *ranges(one.health).values(),
        )
        for one in results.measured
        if any(one.health)
    )
    return Table("Health of the circuits at the end", ("method", "layers warned of", *MEASURES.values()), rows)


def learning_rates(results: Results) -> Table:
    """Return mean losses at all rates; the chosen one says so. Methods with other rates have them in their cells."""
    rows = []
    for choice in results.choices:
        cells = []
        # Grids may differ between methods, so each cell names its rate.
        for rate in choice.tried:
            if rate in choice.dropped:
                cells.append(f"{rate:g}: {choice.dropped[rate]}")
                continue
            row = choice.losses[rate]
            there = [loss for loss in row if loss is not None]
            mean = f"{sum(there) / len(there):.4f}" if there else "no run"
            missing = f", {len(row) - len(there)} missing" if there and len(there) < len(row) else ""
            cells.append(f"{rate:g}: {mean}{missing}{', chosen' if rate == choice.rate else ''}")
        edge = "at the edge of its grid" if choice.is_at_edge else ""
        rows.append((choice.method, *cells, "no rate has all seeds" if choice.rate is None else edge))
    count = max(len(choice.tried) for choice in results.choices)
    title = "Mean loss on the held-out tenth of the training file at every learning rate"
    if results.study.tuning_seeds is not None:
        title += f", seeds {', '.join(map(str, results.study.tuned_with))}"
    return Table(title, ("method", *(f"rate {number}" for number in range(1, count + 1)), "flag"), tuple(rows))


def samples(results: Results) -> list[dict[str, Any]]:
    """Return questions with the answers of the base model and of every method's first seed, side by side."""
    answers: dict[str, tuple[Mapping[str, Any], ...]] = {"without an adapter": results.base_samples}
    answers |= {one.method: one.samples for one in results.measured}
    answers = {name: given for name, given in answers.items() if given}
    # All of them were asked the same, so any of them knows the questions.
    first = next(iter(answers.values()), ())
    return [
        {
            "question": sample["question"],
            "expected": sample["expected"],
            "answers": [(name, given[number]) for name, given in answers.items()],
        }
        for number, sample in enumerate(first)
    ]

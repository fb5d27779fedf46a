"""What results mean, in sentences, and what they do not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qpeft.comparison.results import BETTER, NO_WORSE, UNDECIDED, WORSE, Against, Measured, Results
from qpeft.comparison.statistics import Difference


def interval(value: Difference, digits: int = 4) -> str:
    """An estimate with its 95 % interval."""
    return f"{value.estimate:.{digits}f} ({value.low:.{digits}f} to {value.high:.{digits}f})"


def signed(value: Difference, digits: int = 4) -> str:
    """A difference with its 95 % interval, with signs."""
    return f"{value.estimate:+.{digits}f} ({value.low:+.{digits}f} to {value.high:+.{digits}f})"


def headline(results: Results) -> str:
    """The answer in one sentence."""
    reference = results.study.reference
    by_verdict: dict[str, list[str]] = {}
    for one in results.measured:
        if one.against is not None:
            by_verdict.setdefault(one.against.verdict, []).append(one.method)
    if not by_verdict:
        return f"Nothing can be compared: the reference {reference} or all other methods lack runs."
    margin = f"{results.study.margin:g}"
    phrases = {
        BETTER: f"better than {reference}",
        NO_WORSE: f"no worse than {reference} by the margin of {margin} nats per token",
        WORSE: f"worse than {reference}",
        UNDECIDED: f"not told apart from {reference} by this study",
    }
    parts = [f"{_listed(by_verdict[key])}: {words}" for key, words in phrases.items() if key in by_verdict]
    single = (
        " These are single runs: with one seed, nothing is shown of the methods."
        if len(results.study.seeds) == 1
        else ""
    )
    return "; ".join(parts) + "." + single


def sentence(one: Measured, results: Results) -> str:
    """What may be said of one method against the reference."""
    against = one.against
    assert against is not None
    reference, loss = results.study.reference, against.loss
    size = (
        f"its loss is {abs(loss.estimate):.4f} nats per token {'lower' if loss.estimate < 0 else 'higher'} "
        f"(difference {signed(loss)}, {p_value(against.p)} corrected)"
    )
    said = {
        BETTER: f"{one.method} is better than {reference}: {size}.",
        NO_WORSE: f"{one.method} is no worse than {reference}: {size}, and the upper end of the interval lies below "
        f"the margin of {results.study.margin:g}.",
        WORSE: f"{one.method} is worse than {reference}: {size}.",
        UNDECIDED: f"Whether {one.method} is better or worse than {reference} stays open: {size}. The smallest "
        f"difference that this study would find in four of five cases is {loss.detectable:.4f}.",
    }[against.verdict]
    return f"{said} {_answers(one, against, reference)}".strip()


def _answers(one: Measured, against: Against, reference: str) -> str:
    if against.answers is None or against.answers_p is None:
        return ""
    by = f" ({one.graded[0].title})" if len(one.graded) > 1 else ""
    return (
        f"It answers {one.exact_match:.1%} right{by}, {100 * against.answers:+.1f} points against {reference} "
        f"({p_value(against.answers_p)} corrected)."
    )


def ablation_sentences(one: Measured) -> list[str]:
    """What spoiling the middle's output does to a trained method."""
    found = []
    for name, loss in one.ablations.items():
        effect = "makes it worse" if loss.low > 0 else "makes it better" if loss.high < 0 else "changes nothing seen"
        found.append(f"{one.method}, {name}: {effect} (loss {signed(loss)} nats per token).")
    return found


def limits(results: Results, ledger: Mapping[str, Any]) -> list[str]:
    """What must not be concluded, and why."""
    study = results.study
    found = [_seeds(len(study.seeds))]
    if study.test is None:
        found.append(
            "There is no test: methods are judged by the same items that chose their learning rates, so all losses are "
            "too good, those of methods with more noise most."
        )
    if edges := [choice for choice in results.choices if choice.rate is not None and choice.is_at_edge]:
        names = _listed([f"{choice.method} ({choice.rate:g})" for choice in edges])
        found.append(
            f"The best learning rate lies at the edge of its grid: {names}. A wider grid may change the order."
        )
    if results.measured:
        counts = [one.parameters for one in results.measured]
        if max(counts) > 1.2 * min(counts):
            found.append(
                f"Methods train between {min(counts):,} and {max(counts):,} parameters: at equal size the order may "
                "differ."
            )
    if len(ledger["test_readings"]) > 1:
        found.append(
            f"The test was read {len(ledger['test_readings'])} times in this study, so what is tried after a reading "
            "may be fitted to it."
        )
    found += [
        f"The study was changed on {change['when']} ({', '.join(change['changed'])}), after "
        f"{change['test_readings_before']} readings of the test."
        for change in ledger["amendments"]
    ]
    found.append("One model and one data set: nothing is said of others.")
    return found


def _seeds(count: int) -> str:
    if count == 1:
        return (
            "One seed: intervals cover other items only. How much the losses vary from seed to seed is unknown, so no "
            "method is shown to be better than another; these runs are."
        )
    if count == 2:
        return "Two seeds know almost nothing of their own spread, so intervals are very wide. Take three or more."
    return f"{count} seeds: intervals cover other seeds and other items of the same kind, not the choice of the rate."


def p_value(value: float) -> str:
    """A p-value to three figures, as far as they mean anything."""
    return "p below 0.001" if value < 0.001 else f"p = {value:.3f}"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"

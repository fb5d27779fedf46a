"""What results mean, in sentences, and what must not be concluded from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qpeft.comparison.results import BETTER, NO_WORSE, UNDECIDED, WORSE, Results
from qpeft.evaluation.statistics import Difference


def interval(value: Difference, digits: int = 4) -> str:
    """Return an estimate with its 95 % interval."""
    return f"{value.estimate:.{digits}f} ({value.low:.{digits}f} to {value.high:.{digits}f})"


def signed(value: Difference, digits: int = 4) -> str:
    """Return a difference with its 95 % interval, with signs."""
    return f"{value.estimate:+.{digits}f} ({value.low:+.{digits}f} to {value.high:+.{digits}f})"


@dataclass(frozen=True)
class Finding:
    """Methods of which the same may be said. `claim`: it, as what follows "these methods are".

    `notes`: on their size beside what they are compared with; empty where there is nothing to say.
    """

    verdict: str
    claim: str
    methods: tuple[str, ...]
    notes: tuple[str, ...]


MISSING = "missing"
"""The verdict of a method without a result."""


def findings(results: Results) -> list[Finding]:
    """Return what the study says, the best first; then its contrasts, and the methods without a result."""
    reference = results.study.reference
    compared = {one.method: one.against.verdict for one in results.measured if one.against is not None}
    said: list[tuple[str, str, tuple[str, ...]]] = [
        (verdict, reference, tuple(method for method, of_method in compared.items() if of_method == verdict))
        # In the order of what a reader asks for first.
        for verdict in (BETTER, NO_WORSE, UNDECIDED, WORSE)
    ]
    said += [(one.against.verdict, one.other, (one.method,)) for one in results.contrasts]
    found = []
    for verdict, other, methods in said:
        claim = {
            BETTER: f"better than {other}",
            NO_WORSE: f"no worse than {other} by the margin of {results.study.margin:g} nats per token",
            UNDECIDED: f"not told apart from {other} by this study",
            WORSE: f"worse than {other}",
        }[verdict]
        notes = []
        for method in methods:
            one, than = results.of(method), results.of(other)
            share = 1.0 if one is None or than is None else one.parameters / than.parameters
            # Widths and ranks are whole numbers, so sizes within a tenth are as equal as can be.
            notes.append("" if 0.9 < share < 1.1 else f"{share:.0%} of its size")
        found.append(Finding(verdict, claim, methods, tuple(notes)))
    found.append(Finding(MISSING, "without a result", tuple(results.missing), ("",) * len(results.missing)))
    return [finding for finding in found if finding.methods]


def headline(results: Results) -> str:
    """Return the answer in one sentence."""
    reference, found = results.study.reference, findings(results)
    if all(finding.verdict == MISSING for finding in found):
        return f"Nothing can be compared: the reference {reference} or all other methods lack runs."
    return caution(results) + "; ".join(f"{_listed(finding.methods)}: {finding.claim}" for finding in found) + "."


def caution(results: Results) -> str:
    """Return what must be read before the findings; "" for two seeds and more."""
    if len(results.study.seeds) > 1:
        return ""
    return "One run each, with one seed, so nothing is shown of the methods. Of these runs: "


def facts(results: Results, log: Mapping[str, Any]) -> str:
    """Return what was compared, on what and when, in one line."""
    study = results.study
    # Without a test, the held-out tenth that chose the rates judges too.
    judged = f"{results.num_items:,} test items" if study.test else f"{results.num_items:,} held-out items"
    seeds = "1 seed" if len(study.seeds) == 1 else f"{len(study.seeds)} seeds"
    return f"{study.recipe['model']['name']}, {judged}, {seeds} per method, begun {log['begun'][:10]}"


def lead(results: Results) -> str:
    """Return how far training got, with the sizes of the best method and the reference: figures to start from."""
    if not results.measured:
        return ""
    # The reference may be the best itself, and is then named once.
    best = min(results.measured, key=lambda one: one.loss.estimate)
    said = f"Lowest loss: {best.method}, {best.loss.estimate:.3f} nats per token with {best.parameters:,} parameters"
    reference = results.of(results.study.reference)
    if reference is not None and reference is not best:
        said += f"; {reference.method}: {reference.loss.estimate:.3f} with {reference.parameters:,}"
    return said + ("." if results.base is None else f"; the model without an adapter: {results.base:.3f}.")


def sentences(results: Results) -> list[str]:
    """Return what may be said of every method against the reference, and of the contrasts."""
    study, found = results.study, []
    pairs = [(one.method, study.reference, one.against) for one in results.measured if one.against is not None]
    pairs += [(one.method, one.other, one.against) for one in results.contrasts]
    for method, other, against in pairs:
        loss = against.loss
        size = (
            f"its loss is {abs(loss.estimate):.4f} nats per token {'lower' if loss.estimate < 0 else 'higher'} "
            f"(difference {signed(loss)}, {p_value(against.p)} corrected)"
        )
        said = {
            BETTER: f"{method} is better than {other}: {size}.",
            NO_WORSE: f"{method} is no worse than {other}: {size}, and the upper end of the interval lies below "
            f"the margin of {study.margin:g}.",
            WORSE: f"{method} is worse than {other}: {size}.",
            UNDECIDED: f"Whether {method} is better or worse than {other} stays open: {size}. The smallest "
            f"difference that this study would find in four of five cases is {loss.detectable:.4f}.",
        }[against.verdict]
        said = f"Of these single runs: {said}" if len(study.seeds) == 1 else said
        one = results.of(method)
        if one is not None and against.answers is not None and against.answers_p is not None:
            # With several metrics it is the first that decides what is right. Contrasts say nothing of answers.
            by = f" ({one.graded[0].title})" if len(one.graded) > 1 else ""
            said += (
                f" It answers {one.exact_match:.1%} right{by}, {100 * against.answers:+.1f} points against {other} "
                f"({p_value(against.answers_p)} corrected)."
            )
        found.append(said)
    return found


def limits(results: Results, log: Mapping[str, Any]) -> list[str]:
    """Return what must not be concluded, and why."""
    study = results.study
    known = {
        1: "One seed: intervals cover other items only. How much the losses vary from seed to seed is unknown, so no "
        "method is shown to be better than another; these runs are.",
        2: "Two seeds know almost nothing of their own spread, so intervals are very wide. Take three or more.",
    }
    count = len(study.seeds)
    several = (
        f"{count} seeds: intervals cover other seeds and other items of the same kind, not the choice of the rate."
    )
    found = [known.get(count, several)]
    if study.tuning_seeds is not None:
        found.append(
            f"Learning rates were chosen with {len(study.tuned_with)} of the {len(study.seeds)} seeds: a method whose "
            "best rate needs more to be found is at a disadvantage."
        )
    if study.halving is not None:
        after = _listed([str(steps) for steps in study.halving])
        found.append(
            f"Learning rates were halved after short trainings of {after} steps, by loss on the held-out tenth, a rule "
            "fixed before: a rate that starts slowly and ends well may have been dropped."
        )
    if study.test is None:
        found.append(
            "There is no test: methods are judged by the same items that chose their learning rates, so all losses are "
            "too good, those of methods with more noise most."
        )
    # A method whose best rate was not tried is compared at a disadvantage.
    if edges := [choice for choice in results.choices if choice.rate is not None and choice.is_at_edge]:
        names = _listed([f"{choice.method} ({choice.rate:g})" for choice in edges])
        found.append(
            f"The best learning rate lies at the edge of its grid: {names}. A wider grid may change the order."
        )
    if alone := [choice.method for choice in results.choices if len(choice.tried) == 1]:
        found.append(f"A single learning rate was tried: {_listed(alone)}. Another may change the order.")
    if results.measured:
        counts = [one.parameters for one in results.measured]
        # Up to a fifth more is about as near as widths and ranks, which are whole numbers, can come.
        if max(counts) > 1.2 * min(counts):
            found.append(
                f"Methods train between {min(counts):,} and {max(counts):,} parameters: at equal size the order may "
                "differ."
            )
    if results.missing:
        found.append(f"Without a result, so nothing is said of them: {_listed(list(results.missing))}.")
    if len(log["test_readings"]) > 1:
        found.append(
            f"The test was read {len(log['test_readings'])} times in this study, so what is tried after a reading "
            "may be fitted to it."
        )
    found += [
        f"The study was changed on {change['when']} ({', '.join(change['changed'])}); the test had been read "
        f"{change['test_readings_before']} time{'s' if change['test_readings_before'] != 1 else ''} before."
        for change in log["amendments"]
    ]
    found.append("One model and one data set: nothing is said of others.")
    return found


def p_value(value: float) -> str:
    """Return a p-value to three figures, as far as they mean anything."""
    return "p below 0.001" if value < 0.001 else f"p = {value:.3f}"


def _listed(names: Sequence[str]) -> str:
    # A name with a comma in it would read as two.
    if len(names) > 1 and any("," in name for name in names):
        names = [f"“{name}”" for name in names]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"

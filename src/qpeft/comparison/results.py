"""What a study found, as numbers: every method by itself and against the reference."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from qpeft.comparison.circuit_health import Health, looks
from qpeft.comparison.study import Study
from qpeft.comparison.trial_jobs import Job
from qpeft.comparison.trials import Choice, Inputs, Trial, chosen, loss_of, measure_job
from qpeft.evaluation.metrics import Graded, graded, metrics_by_title, overall, with_comparisons
from qpeft.evaluation.statistics import LEVEL, Array, Difference, holm, mean_interval, paired_difference, sign_test
from qpeft.runs import read_record
from qpeft.runs.record import held_out_ends

BETTER, NO_WORSE, WORSE, UNDECIDED = "better", "no worse", "worse", "undecided"
CURVE = ("step", "loss")
"""What is kept of a run's history."""


@dataclass(frozen=True)
class Against:
    """A method against another. `answers`: share of right answers more; None if none were asked for.

    `p`: corrected for the number of comparisons; `answers_p`: for that of methods and metrics. `items_p`: sign test
    over items, uncorrected. `worse_seeds`: in how many seeds the loss is higher.
    """

    loss: Difference
    p: float
    items_p: float
    worse_seeds: int
    verdict: str
    answers: float | None
    answers_p: float | None


@dataclass(frozen=True)
class Contrast:
    """A method against one that is not the reference; of answers it says nothing."""

    method: str
    other: str
    against: Against


@dataclass(frozen=True)
class Measured:
    """One method at its chosen rate. Rows of arrays are seeds, columns items.

    `nats`: losses of items; `right`: whether answers are, or None. `neutral`: nats per token on neutral text after
    training. `ablations`: the loss of each minus that of the method itself. `against`: None for the reference itself.
    `health`: of every seed's circuits, None without any. `samples`: answers of the first seed. `device`: trained on.
    `graded`: every metric of its answers. `overall`: metrics of all answers together by their titles, means over seeds.
    """

    method: str
    nats: Array
    right: Array | None
    loss: Difference
    neutral: float
    ablations: dict[str, Difference]
    against: Against | None
    parameters: int
    adapter_bytes: int
    seconds_per_step: float | None
    peak_memory: int
    histories: tuple[Sequence[Mapping[str, float]], ...]
    health: tuple[Health | None, ...]
    samples: tuple[Mapping[str, Any], ...]
    device: str
    graded: tuple[Graded, ...] = ()
    overall: Mapping[str, float] = field(default_factory=dict)

    @property
    def exact_match(self) -> float | None:
        """Share of right answers over all seeds, in [0, 1]."""
        return None if self.right is None else float(self.right.mean())


@dataclass(frozen=True)
class Results:
    """A whole study. `base`: nats per token of the model without an adapter, or None; so `base_neutral`.

    `base_samples`: its answers. `gaps`: what is missing, and why; `missing`: methods without a result, with the first
    reason. `tokens`: of every item that was judged by. `num_chosen_by`: examples by which learning rates were chosen.
    `base_metrics`: of its answers, by their titles. `contrasts`: those of the study that have results of both sides.
    """

    study: Study
    choices: tuple[Choice, ...]
    measured: tuple[Measured, ...]
    base: float | None
    base_neutral: float | None
    base_samples: tuple[Mapping[str, Any], ...]
    gaps: tuple[str, ...]
    missing: Mapping[str, str]
    tokens: tuple[int, ...]
    num_chosen_by: int
    base_metrics: Mapping[str, float] = field(default_factory=dict)
    contrasts: tuple[Contrast, ...] = ()

    @property
    def num_items(self) -> int:
        """Return how many items every method was judged by."""
        return len(self.tokens)

    def of(self, method: str) -> Measured | None:
        """Return what was measured of a method; None if it has a gap."""
        return next((one for one in self.measured if one.method == method), None)


def gather(study: Study, trials: Sequence[Trial], choices: Sequence[Choice], inputs: Inputs) -> Results:
    """Return the results of all chosen runs that were measured.

    Args:
        study: the study.
        trials: all of its runs.
        choices: one for each method, in their order.
        inputs: what the runs depend on.

    Returns:
        Of what there is; what is missing stands in `gaps`.
    """
    gaps = [gap for choice in choices for gap in choice.gaps]
    missing: dict[str, str] = {}
    measured, tokens = [], np.zeros(0)
    # A method counts only with every one of its seeds: all are then compared over the same.
    for choice in choices:
        judged = chosen(choice, trials)
        jobs = [measure_job(study, trial, inputs) for trial in judged]
        if not jobs:
            gaps.append(f"{choice.method}: no learning rate has runs for all seeds, so none was chosen")
            missing[choice.method] = choice.gaps[0].removeprefix(f"{choice.method}, ")
        # Not from the seeds that there are: methods would then be compared over different ones.
        elif any(loss_of(trial) is None for trial in judged):
            missing[choice.method] = choice.gaps[-1].removeprefix(f"{choice.method}, ")
        elif unmeasured := [job for job in jobs if job.result() is None]:
            missing[choice.method] = f"judged: {unmeasured[0].failure() or 'not run yet'}"
            gaps.append(f"{choice.method}, {missing[choice.method]}")
        else:
            tokens = np.array(_result(jobs[0])["final"]["items"]["tokens"], dtype=float)
            measured.append(_measured(choice.method, judged, jobs, tokens))
    base = measure_job(study, trials[0], inputs, base=True)
    found = base.result()
    if found is None:
        gaps.append(f"base model: {base.failure() or 'not run yet'}")
    measured, contrasts = _with_comparisons(study, measured, tokens)
    # Every trained run was measured on the same held-out tenth, so any of them knows its size.
    trained = next((read_record(trial.run) for trial in trials if trial.job.result() is not None), None)
    return Results(
        study,
        tuple(choices),
        tuple(measured),
        None if found is None else found["final"]["loss"],
        None if found is None else found["neutral"],
        () if found is None else tuple(found["final"]["samples"]),
        tuple(gaps),
        missing,
        tuple(int(number) for number in tokens),
        0 if trained is None else len(trained["after"]["items"]["tokens"]),
        {} if found is None else metrics_by_title(found["final"]),
        contrasts,
    )


def _result(job: Job) -> dict[str, Any]:
    found = job.result()
    assert found is not None, "asked for before"
    return found


def _measured(method: str, trials: Sequence[Trial], jobs: Sequence[Job], tokens: Array) -> Measured:
    """Return a method by itself, which is not yet compared with any other."""
    records = [read_record(trial.run) for trial in trials]
    found, trained = [_result(job) for job in jobs], [_result(trial.job) for trial in trials]
    finals = [one["final"] for one in found]
    nats = np.array([one["items"]["nats"] for one in finals], dtype=float)
    right = np.array([one["items"]["right"] for one in finals], dtype=float)
    ablated = {name: np.array([one["ablations"][name] for one in found]) for name in found[0]["ablations"]}
    # Curves are drawn of training losses, and of those on the held-out tenth before and after.
    histories = tuple(
        [{name: entry[name] for name in CURVE if name in entry} for entry in record["history"]]
        + [{"step": step, "held_out": loss} for step, loss in held_out_ends(record).items()]
        for record in records
    )
    return Measured(
        method,
        nats,
        right if right.size else None,
        mean_interval(nats, tokens),
        statistics.fmean(one["neutral"] for one in found),
        {name: paired_difference(spoilt, nats, tokens) for name, spoilt in ablated.items()},
        None,
        records[0]["adapter"]["trainable_parameters"],
        trained[0]["adapter_bytes"],
        # The median, since one run may have shared the machine; 0 stands for runs too short to be timed.
        statistics.median(one["seconds_per_step"] or 0.0 for one in records) or None,
        max(record["peak_memory"] for record in records),
        histories,
        tuple(looks(record["health"]) for record in records),
        tuple(finals[0]["samples"]),
        records[0]["environment"]["device"],
        graded(finals),
        overall(finals),
    )


def _with_comparisons(
    study: Study, measured: Sequence[Measured], tokens: Array
) -> tuple[list[Measured], tuple[Contrast, ...]]:
    """Return the same with each method but the reference compared to it, and the contrasts."""
    there = {one.method: one for one in measured}
    pairs = [(name, study.reference) for name in there if name != study.reference] + study.contrasts
    pairs = [(one, other) for one, other in pairs if one in there and other in there]
    losses = [paired_difference(there[one].nats, there[other].nats, tokens) for one, other in pairs]
    found = {}
    # All of them are corrected together: a contrast is one more chance to find something by accident.
    for pair, loss, p in zip(pairs, losses, holm([loss.p for loss in losses]), strict=True):
        items_p = sign_test((there[pair[0]].nats - there[pair[1]].nats).mean(0))
        worse_seeds = sum(value > 0 for value in loss.per_seed)
        found[pair] = Against(loss, p, items_p, worse_seeds, verdict(loss, p, study.margin), None, None)
    contrasts = tuple(Contrast(*pair, found[pair]) for pair in study.contrasts if pair in found)

    compared = [replace(one, against=found.get((one.method, study.reference))) for one in measured]
    reference = next((one for one in compared if one.against is None), None)
    others = {one.method: one.graded for one in compared if one.against is not None}
    if reference is None or not others:
        return compared, contrasts
    answers = with_comparisons(others, reference.graded)
    with_answers = []
    for one in compared:
        against = one.against
        if against is None:
            with_answers.append(one)
            continue
        # The first metric is the one that says whether an answer is right, if the task says so at all.
        first = answers[one.method][0] if one.right is not None and answers[one.method] else None
        if first is not None and first.against is not None:
            against = replace(against, answers=first.against.estimate, answers_p=first.p)
        with_answers.append(replace(one, graded=answers[one.method], against=against))
    return with_answers, contrasts


def verdict(loss: Difference, p: float, margin: float) -> str:
    """Return what may be said of a method against another.

    Args:
        loss: the difference of losses, below zero if the method is better.
        p: of no difference, corrected for the number of comparisons.
        margin: by how much it may be worse and still count as no worse, nats per token.
    """
    # By the corrected p alone: the interval is that of a single comparison.
    if p < 1 - LEVEL and loss.estimate < 0:
        return BETTER
    # Before "worse": a difference that is certain and smaller than the margin does not matter.
    if loss.high < margin:
        return NO_WORSE
    return WORSE if p < 1 - LEVEL else UNDECIDED

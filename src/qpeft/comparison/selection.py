"""Which learning rate each method is judged at: chosen by its losses on the held-out tenth of the training file."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from qpeft.comparison.plan import Inputs, Trial, plan_others, plan_trials
from qpeft.comparison.study import Study
from qpeft.errors import StudyError
from qpeft.runs import read_record


@dataclass(frozen=True)
class Choice:
    """The rate of the smallest mean loss over the tuning seeds, and how it came about.

    `losses`: nats per token for every rate and tuning seed; None where there is no run. `rate`: None if no rate has
    runs for all of them. `gaps`: what is missing, of all seeds, and why.
    """

    method: str
    losses: dict[float, tuple[float | None, ...]]
    rate: float | None
    gaps: tuple[str, ...]

    @property
    def is_at_edge(self) -> bool:
        """Whether a rate beyond the grid may be better, as far as a grid of several tells."""
        return len(self.losses) > 1 and self.rate in (min(self.losses), max(self.losses))


def choose(study: Study, inputs: Inputs) -> tuple[list[Choice], list[Trial]]:
    """A choice for each method, and all trials of the study as far as the runs that are there choose them.

    Raises: StudyError if runs of one seed saw different data.
    """
    tuning = plan_trials(study, inputs)
    choices = [_choose(study, method, [one for one in tuning if one.method == method]) for method in study.methods]
    others = plan_others(study, inputs, {choice.method: choice.rate for choice in choices})
    _require_same_data([*tuning, *others])
    gaps = {choice.method: _gaps([one for one in others if one.method == choice.method]) for choice in choices}
    return [replace(choice, gaps=choice.gaps + gaps[choice.method]) for choice in choices], [*tuning, *others]


def chosen(choice: Choice, trials: Sequence[Trial]) -> list[Trial]:
    """The trials by which a method is judged: those at its rate."""
    return [trial for trial in trials if (trial.method, trial.rate) == (choice.method, choice.rate)]


def _choose(study: Study, method: str, trials: Sequence[Trial]) -> Choice:
    found = {(trial.rate, trial.seed): loss_of(trial) for trial in trials}
    losses = {rate: tuple(found[rate, seed] for seed in study.tuned_with) for rate in study.rates(method)}
    there = {rate: [loss for loss in row if loss is not None] for rate, row in losses.items()}
    whole = {rate: statistics.fmean(row) for rate, row in there.items() if len(row) == len(study.tuned_with)}
    return Choice(method, losses, min(whole, key=whole.__getitem__) if whole else None, _gaps(trials))


def _gaps(trials: Sequence[Trial]) -> tuple[str, ...]:
    return tuple(
        f"{trial.method}, learning rate {trial.rate:g}, seed {trial.seed}: {_reason(trial)}"
        for trial in trials
        if loss_of(trial) is None
    )


def loss_of(trial: Trial) -> float | None:
    """Held-out loss of a run, nats per token; None if it has not finished or has diverged."""
    if trial.job.result() is None:
        return None
    loss = float(read_record(trial.run)["after"]["loss"])
    return loss if math.isfinite(loss) else None


def _reason(trial: Trial) -> str:
    if trial.job.result() is not None:
        return "its loss is not a finite number"
    return trial.job.failure() or "not run yet"


def _require_same_data(trials: Sequence[Trial]) -> None:
    """Raises: StudyError if the runs of a seed were trained on other data or in another order, or judged by other."""
    seen: dict[tuple[int, bool], tuple[object, Trial]] = {}
    for trial in trials:
        if trial.job.result() is not None:
            record = read_record(trial.run)
            early = record["stopped_early"]  # the recipe lets runs end when they get worse, each at its own step
            data = (record["splits"], None if early else (record["steps"], record["order"]))
            first, other = seen.setdefault((trial.seed, early), (data, trial))
            if first != data:
                raise StudyError(
                    f"{trial.run} and {other.run} were not trained on the same examples in the same order, so they "
                    "cannot be compared. Delete the folder of the one that is at fault, and run the study again."
                )

"""Which learning rate each method is judged at: chosen by its losses on the held-out tenth of the training file."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from qpeft.comparison.plan import Trial
from qpeft.comparison.study import Study
from qpeft.errors import StudyError
from qpeft.runs import read_record


@dataclass(frozen=True)
class Choice:
    """The rate of the smallest mean loss over seeds, and how it came about.

    `losses`: nats per token for every rate and seed; None where there is no run. `rate`: None if no rate has runs for
    all seeds. `gaps`: what is missing, and why.
    """

    method: str
    losses: dict[float, tuple[float | None, ...]]
    rate: float | None
    gaps: tuple[str, ...]

    @property
    def is_at_edge(self) -> bool:
        """Whether a rate beyond the grid may be better."""
        return self.rate in (min(self.losses), max(self.losses))


def choose(study: Study, trials: Sequence[Trial]) -> list[Choice]:
    """A choice for each method. Raises: StudyError if runs of one seed saw different data."""
    _require_same_data(trials)
    return [_choose(study, method, [one for one in trials if one.method == method]) for method in study.methods]


def _choose(study: Study, method: str, trials: Sequence[Trial]) -> Choice:
    found = {(trial.rate, trial.seed): _loss(trial) for trial in trials}
    losses = {rate: tuple(found[rate, seed] for seed in study.seeds) for rate in study.rates(method)}
    there = {rate: [loss for loss in row if loss is not None] for rate, row in losses.items()}
    whole = {rate: statistics.fmean(row) for rate, row in there.items() if len(row) == len(study.seeds)}
    gaps = tuple(
        f"{method}, learning rate {trial.rate:g}, seed {trial.seed}: {_reason(trial)}"
        for trial in trials
        if found[trial.rate, trial.seed] is None
    )
    return Choice(method, losses, min(whole, key=whole.__getitem__) if whole else None, gaps)


def _loss(trial: Trial) -> float | None:
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

"""The runs of a study, and which of them are chosen to be compared.

A run is one recipe in a folder named after everything that the run depends on, so that what is there is not done again.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from qpeft.comparison.holdout import SHARE
from qpeft.comparison.study import Study
from qpeft.comparison.trial_jobs import Job
from qpeft.errors import StudyError
from qpeft.runs import environment, hash_file, read_record
from qpeft.training import Recipe
from qpeft.training.config import parse_recipe


@dataclass(frozen=True)
class Trial:
    """One run. `job` trains it; `run` is where its adapter and record go."""

    method: str
    rate: float
    seed: int
    recipe: Recipe
    job: Job

    @property
    def run(self) -> Path:
        return Path(self.recipe.output.folder)


@dataclass(frozen=True)
class Inputs:
    """What runs depend on beside the study.

    `hashes`: SHA-256 of every data file by its path; a Hub name stands for itself. `versions`: of packages.
    """

    hashes: dict[str, str]
    versions: dict[str, str | None]


@dataclass(frozen=True)
class Choice:
    """The rate of the smallest mean loss over the tuning seeds, and how it came about.

    `losses`: nats per token for every rate and tuning seed; None where there is no run. `rate`: None if no rate has
    runs for all of them. `gaps`: what is missing, of all seeds, and why. `dropped`: rates that short trainings left
    behind, and how.
    """

    method: str
    losses: dict[float, tuple[float | None, ...]]
    rate: float | None
    gaps: tuple[str, ...]
    dropped: dict[float, str] = field(default_factory=dict)

    @property
    def tried(self) -> list[float]:
        """All rates of the grid, in rising order."""
        return sorted({*self.losses, *self.dropped})

    @property
    def is_at_edge(self) -> bool:
        """Whether a rate beyond the grid may be better, as far as a grid of several tells."""
        return len(self.tried) > 1 and self.rate in (self.tried[0], self.tried[-1])


@dataclass(frozen=True)
class Halving:
    """Which rates are left of each method after the short trainings that have ended.

    `trials`: the short trainings, as far as it is known which there are. `dropped`: by method and rate, when and why.
    """

    left: dict[str, list[float]]
    trials: list[Trial]
    dropped: dict[str, dict[float, str]]


def read_inputs(study: Study) -> Inputs:
    """Return the inputs as they are now."""
    recipe = study.base()
    named = [source.path for source in recipe.data.training_sources] + [recipe.model.chat_template, study.test]
    sources = [source for source in named if source is not None]
    hashes = {source: hash_file(Path(source)) if Path(source).is_file() else source for source in sources}
    return Inputs(hashes, environment()["versions"])


def changed_files(study: Study, inputs: Inputs) -> list[str]:
    """Return the data files that exist, but not as they were. A file that is gone is no reason to refuse a report."""
    now = read_inputs(study).hashes.items()
    return [source for source, digest in now if Path(source).is_file() and digest != inputs.hashes.get(source)]


def plan_trials(study: Study, inputs: Inputs) -> list[Trial]:
    """Return the runs that choose the rates: every method at every rate that is left, with each tuning seed."""
    grid = [(method, rate) for method, rates in halve(study, inputs).left.items() for rate in rates]
    # The first seed of all comes first, so that the table fills evenly.
    return [_trial(study, method, rate, seed, inputs) for seed in study.tuned_with for method, rate in grid]


def halve(study: Study, inputs: Inputs) -> Halving:
    """Return what is left of the rates by the study's rule, as far as its short trainings have been run.

    A short training is one of its own, with a schedule of its own that ends at zero, not the beginning of a long one.
    """
    left = {method: study.rates(method) for method in study.methods}
    trials: list[Trial] = []
    dropped: dict[str, dict[float, str]] = {method: {} for method in study.methods}
    for steps in study.halving or ():
        # A rate that is alone has won already.
        grid = [(method, rate) for method, rates in left.items() if len(rates) > 1 for rate in rates]
        short = [_trial(study, *one, seed, inputs, steps=steps) for seed in study.tuned_with for one in grid]
        trials += short
        if any(trial.job.result() is None and trial.job.failure() is None for trial in short):
            break
        for method in {method: None for method, _ in grid}:
            losses: dict[float, list[float]] = {rate: [] for rate in left[method]}
            for trial in short:
                if trial.method == method:
                    # What diverges or crashes is worse than anything that does not.
                    loss = loss_of(trial)
                    losses[trial.rate].append(math.inf if loss is None else loss)
            means = {rate: statistics.fmean(row) for rate, row in losses.items()}
            ranking = sorted(means, key=lambda rate: (means[rate], rate))
            half = -(-len(ranking) // 2)
            left[method] = sorted(ranking[:half])
            dropped[method] |= {rate: f"dropped after {steps} steps at {means[rate]:.4f}" for rate in ranking[half:]}
    return Halving(left, trials, dropped)


def plan_others(study: Study, inputs: Inputs, rates: Mapping[str, float | None]) -> list[Trial]:
    """Return the runs with the seeds that choose nothing.

    Args:
        study: whose runs.
        inputs: what they depend on.
        rates: the rate of every method; None leaves the method out.
    """
    # A method without a chosen rate has nothing to run with the other seeds.
    chosen = [(method, rate) for method, rate in rates.items() if rate is not None]
    seeds = [seed for seed in study.seeds if seed not in study.tuned_with]
    return [_trial(study, method, rate, seed, inputs) for seed in seeds for method, rate in chosen]


def measure_job(study: Study, trial: Trial, inputs: Inputs, *, base: bool = False) -> Job:
    """Return the job that measures a chosen trial on the test.

    Args:
        study: whose test.
        trial: a trained run.
        inputs: what it depends on.
        base: measure the base model beside it instead, on the same.
    """
    test_hash = inputs.hashes[study.test] if study.test else None
    arguments = {
        "recipe": trial.recipe.model_dump(mode="json"),
        "run": None if base else str(trial.run),
        "test": study.test,
        "items": study.test_items,
        "digest": None if test_hash == study.test else test_hash,
        "ablate": not base and trial.method in study.ablate,
    }
    # The adapter is known by its folder; of the recipe, only what the base model depends on tells measurements apart.
    shared = {name: value for name, value in _content(trial.recipe).items() if name in ("model", "data", "evaluation")}
    depends_on = arguments | {"recipe": shared, "run": None, "test": test_hash, "versions": inputs.versions}
    folder = Path(study.output.folder) / "base" if base else trial.job.folder
    title = f"judged: {'base model' if base else trial.job.title}"
    return Job(title, folder, f"measured-{_digest(depends_on)[:12]}", "measure", arguments)


def _trial(study: Study, method: str, rate: float, seed: int, inputs: Inputs, *, steps: int | None = None) -> Trial:
    """Return one run.

    Args:
        study, method, rate, seed, inputs: which it is, and what it depends on.
        steps: of a short one; None for those of the recipe.
    """
    values = copy.deepcopy(study.recipe)
    values |= {"seed": seed, "adapter": study.adapter(method)}
    values["training"] = (values.get("training") or {}) | {"learning_rate": rate}
    if steps is not None:
        values["training"] |= {"steps": steps}
    values["data"] |= {"hold_out": SHARE}
    values["evaluation"] = (values.get("evaluation") or {}) | {"before": False}
    recipe = parse_recipe(values | {"output": {"folder": "run"}}, source="study")
    # Not the test: a study that gets another one keeps its trained runs.
    used = {name: value for name, value in inputs.hashes.items() if name != study.test}
    key = _digest({"recipe": _content(recipe), "data": used, "versions": inputs.versions})
    folder = Path(study.output.folder) / "trials" / key[:16]
    recipe = parse_recipe(values | {"output": {"folder": str(folder / "run")}}, source="study")
    # Answers are generated for the chosen runs alone; what is generated does not change what is trained.
    measured = recipe.evaluation.model_copy(update={"exact_match": False, "task": None})
    trained = recipe.model_copy(update={"evaluation": measured})
    title = f"{method}, learning rate {rate:g}, seed {seed}" + (f", {steps} steps" if steps is not None else "")
    job = Job(title, folder, "trained", "train", {"recipe": trained.model_dump(mode="json")})
    return Trial(method, rate, seed, recipe, job)


def _content(recipe: Recipe) -> dict[str, Any]:
    """Return what runs depend on, as studies from before there were tasks wrote it, so that they find their runs."""
    values = recipe.model_dump(mode="json", exclude={"output"})
    evaluation = values["evaluation"]
    if evaluation["task"] is None:
        del evaluation["task"]
    evaluation["max_new_tokens"] = evaluation["max_new_tokens"] or 64
    return values


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def choose(study: Study, inputs: Inputs) -> tuple[list[Choice], list[Trial]]:
    """Return a choice for each method, and all trials of the study as far as the runs that are there choose them.

    A rate is chosen by the losses on the held-out tenth of the training file.

    Raises: StudyError if runs of one seed saw different data.
    """
    halving, tuning, choices = halve(study, inputs), plan_trials(study, inputs), []
    for method in study.methods:
        mine = [trial for trial in tuning if trial.method == method]
        found = {(trial.rate, trial.seed): loss_of(trial) for trial in mine}
        losses = {rate: tuple(found[rate, seed] for seed in study.tuned_with) for rate in halving.left[method]}
        # A rate that lacks a seed is not chosen: its mean would be one over easier or harder runs.
        means = {rate: statistics.fmean(row) for rate, row in losses.items() if None not in row}  # type: ignore[arg-type]
        best = min(means, key=means.__getitem__) if means else None
        choices.append(Choice(method, losses, best, _gaps(mine), halving.dropped[method]))
    others = plan_others(study, inputs, {choice.method: choice.rate for choice in choices})

    seen: dict[tuple[int, bool], tuple[object, Trial]] = {}
    for trial in [*tuning, *others]:
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
    gaps = {choice.method: _gaps([one for one in others if one.method == choice.method]) for choice in choices}
    return [replace(choice, gaps=choice.gaps + gaps[choice.method]) for choice in choices], [*tuning, *others]


def chosen(choice: Choice, trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials by which a method is judged: those at its rate."""
    return [trial for trial in trials if (trial.method, trial.rate) == (choice.method, choice.rate)]


def loss_of(trial: Trial) -> float | None:
    """Return the held-out loss of a run, nats per token; None if it has not finished or has diverged."""
    if trial.job.result() is None:
        return None
    loss = float(read_record(trial.run)["after"]["loss"])
    return loss if math.isfinite(loss) else None


def _gaps(trials: Sequence[Trial]) -> tuple[str, ...]:
    found = []
    for trial in trials:
        if loss_of(trial) is None:
            diverged = "its loss is not a finite number" if trial.job.result() is not None else None
            reason = diverged or trial.job.failure() or "not run yet"
            found.append(f"{trial.method}, learning rate {trial.rate:g}, seed {trial.seed}: {reason}")
    return tuple(found)

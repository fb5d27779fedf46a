"""The runs of a study: one recipe each, in a folder that is named after everything the run depends on."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qpeft.comparison.jobs import Job
from qpeft.comparison.judging import SHARE
from qpeft.comparison.study import Study
from qpeft.runs import environment, hash_file
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


def read_inputs(study: Study) -> Inputs:
    """The inputs as they are now."""
    hashes = {source: hash_file(Path(source)) if Path(source).is_file() else source for source in _sources(study)}
    return Inputs(hashes, environment()["versions"])


def changed_files(study: Study, inputs: Inputs) -> list[str]:
    """Data files that are there, but not as they were."""
    files = [Path(source) for source in _sources(study) if Path(source).is_file()]
    return [str(file) for file in files if hash_file(file) != inputs.hashes.get(str(file))]


def _sources(study: Study) -> list[str]:
    recipe = study.base()
    named = [source.path for source in recipe.data.training_sources] + [recipe.model.chat_template, study.test]
    return [source for source in named if source is not None]


def plan_trials(study: Study, inputs: Inputs) -> list[Trial]:
    """What chooses the rates: every method at every one. The first seeds of all come first, so a table fills evenly."""
    grid = [(method, rate) for method in study.methods for rate in study.rates(method)]
    return [_trial(study, method, rate, seed, inputs) for seed in study.tuned_with for method, rate in grid]


def plan_others(study: Study, inputs: Inputs, rates: Mapping[str, float | None]) -> list[Trial]:
    """The seeds that choose nothing, at the rate of every method that has one."""
    chosen = [(method, rate) for method, rate in rates.items() if rate is not None]
    seeds = [seed for seed in study.seeds if seed not in study.tuned_with]
    return [_trial(study, method, rate, seed, inputs) for seed in seeds for method, rate in chosen]


def measure_job(study: Study, trial: Trial, inputs: Inputs, *, base: bool = False) -> Job:
    """What measures a chosen trial on the test, or, beside it, the base model on the same."""
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


def _trial(study: Study, method: str, rate: float, seed: int, inputs: Inputs) -> Trial:
    values = copy.deepcopy(study.recipe)
    values |= {"seed": seed, "adapter": study.adapter(method)}
    values["training"] = (values.get("training") or {}) | {"learning_rate": rate}
    values["data"] |= {"hold_out": SHARE}
    values["evaluation"] = (values.get("evaluation") or {}) | {"before": False}
    recipe = parse_recipe(values | {"output": {"folder": "run"}}, source="study")
    used = {name: value for name, value in inputs.hashes.items() if name != study.test}
    key = _digest({"recipe": _content(recipe), "data": used, "versions": inputs.versions})
    folder = Path(study.output.folder) / "trials" / key[:16]
    recipe = parse_recipe(values | {"output": {"folder": str(folder / "run")}}, source="study")
    # Answers are generated for the chosen runs alone; what is generated does not change what is trained.
    measured = recipe.evaluation.model_copy(update={"exact_match": False, "task": None})
    trained = recipe.model_copy(update={"evaluation": measured})
    title = f"{method}, learning rate {rate:g}, seed {seed}"
    job = Job(title, folder, "trained", "train", {"recipe": trained.model_dump(mode="json")})
    return Trial(method, rate, seed, recipe, job)


def _content(recipe: Recipe) -> dict[str, Any]:
    """What runs depend on, in the form of studies from before there were tasks, so that those find their runs."""
    values = recipe.model_dump(mode="json", exclude={"output"})
    evaluation = values["evaluation"]
    if evaluation["task"] is None:
        del evaluation["task"]
    evaluation["max_new_tokens"] = evaluation["max_new_tokens"] or 64
    return values


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

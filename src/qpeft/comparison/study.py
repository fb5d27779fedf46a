"""A study as a file: which methods are compared on what, and what counts as equal, all fixed before the first run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from peft import PeftConfig
from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from qpeft.adapters.build import build_config
from qpeft.adapters.qtha import QthaConfig
from qpeft.errors import StudyError
from qpeft.training.config import DIALECT, parse, read_values, recipe_schema
from qpeft.training.sections import AdapterSection, Recipe, Section

Rates = Annotated[list[PositiveFloat], Field(min_length=1)]
FROM = "from"


class StudyOutput(Section):
    """The folder of a study."""

    folder: str = Field(description="Folder of all runs, their results and the report; a study in it is continued.")


class Study(Section):
    """Methods x learning rates x seeds on one model and data set."""

    name: str = Field(description="Heading of the report.")
    question: str | None = Field(None, description="What the study is to answer, in words.")
    recipe: dict[str, Any] = Field(
        description="What all runs share, as a recipe, or the path of one. `from` inside names a recipe file, relative "
        "to the study's, whose values hold where none is given here. Its seed, learning rate, adapter and output are "
        "replaced."
    )
    common: dict[str, Any] = Field(
        default_factory=dict, description="Adapter options of all methods, such as target_modules."
    )
    methods: dict[str, AdapterSection] = Field(min_length=2, description="Adapter section of every method, by name.")
    reference: str = Field(description="The method that all others are compared with.")
    contrasts: list[tuple[str, str]] = Field(
        default_factory=list,
        description="Further pairs that are compared directly, such as [A, B] for A minus B.",
    )
    learning_rates: Rates | dict[str, Rates] = Field(
        description="Tried for every method; or a list for each, all of one length."
    )
    seeds: list[Annotated[int, Field(ge=0, lt=2**32)]] = Field(
        min_length=1, description="Seeds of initial weights and data order; three or more tell methods from chance."
    )
    tuning_seeds: list[int] | None = Field(
        None,
        min_length=1,
        description="Those of the seeds that choose the learning rates; the others are trained at the chosen rate "
        "alone. None for all of them.",
    )
    halving: list[PositiveInt] | None = Field(
        None,
        min_length=1,
        description="Steps of short trainings before the full ones, such as [12, 24]: after each, the better half of a "
        "method's learning rates, rounded up, goes on, by loss on the held-out tenth. None trains all rates in full.",
    )
    margin: PositiveFloat = Field(description="Loss in nats per token by which a method may be worse and still equal.")
    test: str | None = Field(
        None,
        description="File or Hub name whose items the chosen runs are judged on. No learning rate is chosen by it.",
    )
    test_items: PositiveInt | None = Field(
        None, description="Judge by this many of those that are kept, from the start; None for all."
    )
    ablate: list[str] = Field(
        default_factory=list,
        description="Methods also tested with their bottleneck's output permuted among tokens, and with its mean.",
    )
    output: StudyOutput

    @model_validator(mode="after")
    def _fits_itself(self) -> Study:
        # Names first, since what follows looks methods up by them.
        known = ", ".join(self.methods)
        paired = [name for pair in self.contrasts for name in pair]
        for role, names in (("reference", [self.reference]), ("ablate", self.ablate), ("contrasts", paired)):
            if unknown := [name for name in names if name not in self.methods]:
                raise ValueError(f"{role} names {unknown[0]!r}, which is not among the methods: {known}")
        for one, other in self.contrasts:
            if one == other or self.reference in (one, other):
                why = (
                    "is one method twice" if one == other else f"is compared anyway: {self.reference} is the reference"
                )
                raise ValueError(f"contrasts: [{one}, {other}] {why}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: the same seed twice is one run, not two")
        if strange := [seed for seed in self.tuning_seeds or () if seed not in self.seeds]:
            raise ValueError(f"tuning_seeds: {strange[0]} is not among the seeds, {self.seeds}")
        grids = self.learning_rates if isinstance(self.learning_rates, dict) else {}
        if grids and grids.keys() != self.methods.keys():
            raise ValueError(f"learning_rates must be one list for all methods, or a list for each method: {known}")
        # A method with more trials would win by its trials.
        if len({len(grid) for grid in grids.values()}) > 1:
            counts = ", ".join(f"{name}: {len(grid)}" for name, grid in grids.items())
            raise ValueError(f"learning_rates: every method gets the same number of trials; got {counts}")
        if any(len(set(grid)) < len(grid) for grid in map(self.rates, self.methods)):
            raise ValueError("learning_rates: the same rate twice is one trial, not two")
        if self.halving is not None:
            steps = (self.recipe.get("training") or {}).get("steps")
            if steps is None or self.halving != sorted(set(self.halving)) or self.halving[-1] >= steps:
                raise ValueError(
                    f"halving: short trainings get longer and stay shorter than recipe.training.steps, {steps}; got "
                    f"{self.halving}"
                )
        return self

    @property
    def tuned_with(self) -> list[int]:
        """Return the seeds that choose the learning rates, in the order of all."""
        return [seed for seed in self.seeds if self.tuning_seeds is None or seed in self.tuning_seeds]

    def rates(self, method: str) -> list[float]:
        """Return the learning rates tried for a method, in rising order."""
        grids = self.learning_rates
        return sorted(grids[method] if isinstance(grids, dict) else grids)

    def adapter(self, method: str) -> dict[str, Any]:
        """Return the adapter section of a method's runs."""
        section = self.methods[method]
        return {"type": section.type, **self.common, **section.options}

    def base(self, *, source: str = "recipe") -> Recipe:
        """Return the recipe that all runs share, without their adapter. Raises: RecipeError, which names the source."""
        # A recipe needs these two sections; every run gets its own in their place.
        return parse(Recipe, self.recipe | {"adapter": {}, "output": {"folder": self.output.folder}}, source=source)

    def config(self, method: str) -> PeftConfig:
        """Return the PEFT config of a method. Raises: AdapterError for a method or option that there is not."""
        options = self.adapter(method)
        return build_config(options.pop("type"), options)

    def digest(self) -> str:
        """Return the SHA-256 of all that the study fixes, hexadecimal."""
        # Without the folder, so that a study keeps its name when it is moved.
        values = self.model_dump(mode="json", exclude={"output"})
        if self.halving is None:
            del values["halving"]  # studies of before there was this rule keep their hash
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def load_study(path: Path, overrides: Iterable[str] = ()) -> Study:
    """Return a study from a YAML file and command-line overrides, with the recipe that it names read in.

    Raises: RecipeError for files that cannot be read and for unknown keys, naming the nearest; StudyError for a
    recipe that holds data out by itself; AdapterError for a method that there is not.
    """
    values = read_values(path, overrides, sections=Study)
    section = values.get("recipe")
    section = {FROM: section} if isinstance(section, str) else section
    if isinstance(section, dict) and FROM in section:
        # The file's values, each section with the changes that the study makes to it.
        whole = read_values(path.parent / str(section[FROM]), (), sections=Recipe)
        for name, changes in section.items():
            if name != FROM:
                merged = isinstance(whole.get(name), dict) and isinstance(changes, dict)
                whole[name] = whole[name] | changes if merged else changes
        values["recipe"] = whole
    return parse_study(values, source=str(path))


def parse_study(values: Mapping[str, Any], *, source: str) -> Study:
    """Return a study from nested mappings; `source` says in errors where they came from. Raises: as `load_study`."""
    study = parse(Study, values, source=source)
    # Checked here once, with all its defaults: runs would otherwise fail one by one.
    recipe = study.base(source=f"{source}: recipe")
    if recipe.data.eval is not None or recipe.data.hold_out is not None:
        raise StudyError(
            f"{source}: the recipe holds examples out (data.eval or data.hold_out), and a learning rate must not be "
            "chosen on what it is judged by. A study chooses on a hashed tenth of data.train; name the file to judge "
            "by as test, and set both to null in the recipe."
        )
    if study.test in [training.path for training in recipe.data.training_sources]:
        raise StudyError(f"{source}: test and recipe.data.train are the same, {study.test}. Name another test file.")
    for method in study.methods:
        config = study.config(method)
        if method in study.ablate and not (isinstance(config, QthaConfig) and config.bottleneck != "none"):
            raise StudyError(
                f"{source}: ablate names {method!r}, which has nothing in its bottleneck that could be ablated."
            )
    return study


def study_schema() -> dict[str, Any]:
    """Return the JSON schema of study files: every key with type, default and description, recipes' keys included."""
    # A study's recipe may leave out what a recipe needs, and name a file instead, so its own schema does not do.
    study, recipe = Study.model_json_schema(), recipe_schema()
    definitions = recipe.pop("$defs") | study.pop("$defs")
    # Not the plain one of the study: that of recipes knows the options of our own methods.
    definitions[AdapterSection.__name__] = recipe_schema()["$defs"][AdapterSection.__name__]
    replaced = study["properties"]["recipe"]
    sections = {name: value for name, value in recipe["properties"].items() if name not in ("adapter", "output")}
    definitions[Recipe.__name__] = {
        "type": "object",
        "properties": {FROM: {"type": "string", "description": "Recipe file, relative to the study's."}, **sections},
    }
    study["properties"]["recipe"] = {
        "description": replaced["description"],
        "anyOf": [{"type": "string"}, {"$ref": f"#/$defs/{Recipe.__name__}"}],
    }
    return {"$schema": DIALECT, "$defs": definitions, **study}

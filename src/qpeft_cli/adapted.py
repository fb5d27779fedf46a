"""A trained adapter on its base model, or a model that one was merged into, as commands that ask it need it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

import typer
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from qpeft.adapters.load import load_adapter
from qpeft.adapters.validation import FILES
from qpeft.data import answer_ends
from qpeft.errors import AdapterError, ModelError, OutputError
from qpeft.exporting.plan import EXPORT_FILE
from qpeft.models import load_tokenizer
from qpeft.models.reading import reading
from qpeft.runs import hash_file, read_record
from qpeft.runs.record import FILE_NAME
from qpeft.training.config import parse_recipe
from qpeft.training.sections import ModelSection, Recipe
from qpeft.training.setup import base_model

BASE, ADAPTED, MERGED = "base model", "with adapter", "model"
"""Who answers, in tables."""


@dataclass(frozen=True)
class AdaptedModel:
    """The model with its adapter, or with full weights that one was merged into; in evaluation mode."""

    model: PeftModel | PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @property
    def has_adapter(self) -> bool:
        """Whether it is beside the weights."""
        return isinstance(self.model, PeftModel)

    @property
    def adapter(self) -> PeftModel:
        """The model, for what needs an adapter beside the weights. Raises: AdapterError if there is none."""
        if not isinstance(self.model, PeftModel):
            raise AdapterError(
                "The folder holds full weights and no adapter beside them: there is no base model to compare with, no "
                "circuit for a device and nothing to merge or export. Name the folder of the adapter for that."
            )
        return self.model

    def names(self, base: bool) -> tuple[str, ...]:
        """Return who is asked, the base model first if it is asked too. Raises: AdapterError without an adapter."""
        if base:
            assert self.adapter
            return BASE, ADAPTED
        return (ADAPTED if self.has_adapter else MERGED,)

    def without_adapter(self, disabled: bool) -> AbstractContextManager[None]:
        """Return a block in which the base model answers alone, if `disabled`. Raises: AdapterError."""
        context: AbstractContextManager[None] = self.adapter.disable_adapter() if disabled else nullcontext()
        return context


@dataclass(frozen=True)
class Adapted(AdaptedModel):
    """The same, and the recipe that made it."""

    recipe: Recipe


@dataclass(frozen=True)
class AdapterSource:
    """What a folder says of its adapter: the base model, and how questions were put to it in training.

    `system`, `prompt` and `roles` are those of the recipe's data section.
    """

    model: ModelSection
    system: str | None = None
    prompt: str | None = None
    roles: Mapping[str, str] = field(default_factory=dict)


def holds_model(folder: Path) -> bool:
    """Whether the folder holds full weights, as `qpeft merge` writes them, and no adapter."""
    # Links that lead nowhere count: a run or an adapter that is gone is not a full model.
    others = ("adapter_config.json", FILE_NAME)
    return (folder / "config.json").is_file() and not any(os.path.lexists(folder / name) for name in others)


def weight_hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of the files with the adapter, or of those with full weights, by name."""
    names = sorted(path.name for path in folder.glob("*.safetensors")) if holds_model(folder) else FILES
    return {name: hash_file(folder / name) for name in names if (folder / name).is_file()}


def read_recipe(folder: Path) -> Recipe:
    """Return the recipe of the run in `folder`, or of that whose export or merge is there; its model is then that one.

    Full weights from elsewhere have the recipe of a run on no data. Raises: OutputError or RecipeError.
    """
    report, is_model = folder / EXPORT_FILE, holds_model(folder)
    # The run's own record is the most exact, and without any of them its error names the file that is missing.
    if os.path.lexists(folder / FILE_NAME) or not (is_model or report.is_file()):
        return parse_recipe(read_record(folder)["recipe"], source=str(folder / FILE_NAME))
    try:
        kept = json.loads(report.read_text(encoding="utf-8")).get("recipe") if report.is_file() else None
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise OutputError(f"{report} cannot be read: {error}.") from error
    if not isinstance(kept, dict):
        if not is_model:
            raise OutputError(f"{report} holds no recipe of the run, so nobody knows how questions were put in it.")
        # A recipe must name data. Nothing is held out of these, so that `eval` asks for --data.
        kept = {"model": {"name": str(folder)}, "data": {"train": str(folder)}}
    values = kept | {"output": {"folder": str(folder)}}
    if is_model:
        # The chat template is among the tokenizer's files, and merged weights are not quantized.
        own = {"name": str(folder), "chat_template": None, "quantization": None}
        values |= {"model": {**model, **own} if isinstance(model := kept.get("model"), dict) else model, "device": None}
    return parse_recipe(values, source=str(report))


def read_source(folder: Path) -> AdapterSource:
    """Return what the folder says of its adapter.

    That stands in the record of the run, in what a merge or export kept of it, or, if another trainer of PEFT left the
    folder, in its adapter_config.json.

    Raises: OutputError, RecipeError or AdapterError.
    """
    config, keeps_recipe = folder / "adapter_config.json", False
    # Whatever else may stand in a file of that name, it is not ours.
    with suppress(OSError, ValueError, TypeError, RecursionError):
        keeps_recipe = "recipe" in json.loads((folder / EXPORT_FILE).read_text(encoding="utf-8"))
    if os.path.lexists(folder / FILE_NAME) or not config.is_file() or keeps_recipe:
        recipe = read_recipe(folder)
        return AdapterSource(recipe.model, recipe.data.system, recipe.data.prompt, recipe.data.roles)
    try:
        base = json.loads(config.read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise AdapterError(f"{config} cannot be read: {error}.") from error
    if not isinstance(base, str) or not base:
        raise AdapterError(f"{config} names no base model; write it as base_model_name_or_path.")
    return AdapterSource(ModelSection(name=base))


def load_adapted(folder: Path, *, trust_remote_code: bool = False) -> Adapted:
    """Load what `train`, `merge` or `export` left in `folder`. Raises: OutputError, ModelError or AdapterError."""
    recipe = read_recipe(folder)
    loaded = load_onto(recipe.model, folder, trust_remote_code=trust_remote_code)
    return Adapted(loaded.model, loaded.tokenizer, recipe)


def load_onto(base: ModelSection, folder: Path, *, trust_remote_code: bool = False) -> AdaptedModel:
    """Return the base model with the adapter in `folder`, or the full model there.

    Where answers end is said, if no file in the folder says it.

    Args:
        base: as the folder names it. Its own `trust_remote_code` permits nothing: the folder may be anybody's.
        folder: of the adapter.
        trust_remote_code: whether the user permits that code of the base model is run.

    Raises: ModelError, also where that code is needed and not permitted; AdapterError.
    """
    if base.trust_remote_code and not trust_remote_code:
        raise ModelError(
            f"{folder} was trained with Python code that comes with the model {base.name}. If you trust the model, say "
            "--trust-remote-code. Nothing was run."
        )
    # From here on it is the user's permission that counts, whatever the folder says.
    base = base.model_copy(update={"trust_remote_code": trust_remote_code})
    tokenizer = load_tokenizer(base.name, chat_template=base.chat_template, trust_remote_code=trust_remote_code)
    model = base_model(base)
    if (fault := reading(model, base.name).padding_fault(tokenizer)) is not None:
        raise ModelError(fault)
    # Training writes that file, so a run of ours has said it before.
    news = answer_ends(tokenizer, model.generation_config).news
    if news and not (folder / "generation_config.json").is_file():
        typer.echo(f"note: {news}; generation stops at all of them", err=True)
    return AdaptedModel(model if holds_model(folder) else load_adapter(model, folder), tokenizer)

"""A trained adapter on its base model, as commands that ask it need it."""

from __future__ import annotations

import json
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from qpeft.adapters.load import load_adapter
from qpeft.errors import AdapterError
from qpeft.models import default_device, load_model, load_tokenizer
from qpeft.runs import read_record
from qpeft.runs.record import FILE_NAME
from qpeft.training.config import parse_recipe
from qpeft.training.sections import ModelSection, Recipe


@dataclass(frozen=True)
class AdaptedModel:
    """The model with its adapter, in evaluation mode."""

    model: PeftModel
    tokenizer: PreTrainedTokenizerBase

    def without_adapter(self, disabled: bool) -> AbstractContextManager[None]:
        """The base model alone inside, if `disabled`."""
        context: AbstractContextManager[None] = self.model.disable_adapter() if disabled else nullcontext()
        return context


@dataclass(frozen=True)
class Adapted(AdaptedModel):
    """The same, and the recipe that made it."""

    recipe: Recipe


@dataclass(frozen=True)
class Origin:
    """What a folder says of its adapter: the base model, and how questions were put to it in training."""

    model: ModelSection
    system: str | None = None
    prompt: str | None = None


def read_recipe(folder: Path) -> Recipe:
    """The recipe of the run in `folder`. Raises: OutputError or RecipeError."""
    return parse_recipe(read_record(folder)["recipe"], source=str(folder / FILE_NAME))


def read_origin(folder: Path) -> Origin:
    """From the record of the run in `folder`, or, if another trainer of PEFT left it, from its adapter_config.json.

    Raises: OutputError, RecipeError or AdapterError.
    """
    config = folder / "adapter_config.json"
    if os.path.lexists(folder / FILE_NAME) or not config.is_file():
        recipe = read_recipe(folder)
        return Origin(recipe.model, recipe.data.system, recipe.data.prompt)
    try:
        base = json.loads(config.read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise AdapterError(f"{config} cannot be read: {error}.") from error
    if not isinstance(base, str) or not base:
        raise AdapterError(f"{config} names no base model; write it as base_model_name_or_path.")
    return Origin(ModelSection(name=base))


def load_adapted(folder: Path) -> Adapted:
    """Load what `qpeft train` left in `folder`. Raises: OutputError, ModelError or AdapterError."""
    recipe = read_recipe(folder)
    loaded = load_onto(recipe.model, folder)
    return Adapted(loaded.model, loaded.tokenizer, recipe)


def load_onto(base: ModelSection, folder: Path) -> AdaptedModel:
    """The base model with the adapter in `folder`. Raises: ModelError or AdapterError."""
    tokenizer = load_tokenizer(base.name, chat_template=base.chat_template, trust_remote_code=base.trust_remote_code)
    model = load_model(base.name, dtype=base.dtype, trust_remote_code=base.trust_remote_code)
    return AdaptedModel(load_adapter(model.to(default_device()), folder), tokenizer)

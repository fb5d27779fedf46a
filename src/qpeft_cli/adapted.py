"""A trained adapter on its base model, as commands that ask it need it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from qpeft.adapters.load import load_adapter
from qpeft.errors import AdapterError, ModelError
from qpeft.models import load_tokenizer
from qpeft.models.reading import reading
from qpeft.runs import read_record
from qpeft.runs.record import FILE_NAME
from qpeft.training.config import parse_recipe
from qpeft.training.sections import ModelSection, Recipe
from qpeft.training.setup import base_model


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
    """What a folder says of its adapter: the base model, and how questions were put to it in training.

    `system`, `prompt` and `roles` are those of the recipe's data section.
    """

    model: ModelSection
    system: str | None = None
    prompt: str | None = None
    roles: Mapping[str, str] = field(default_factory=dict)


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
        return Origin(recipe.model, recipe.data.system, recipe.data.prompt, recipe.data.roles)
    try:
        base = json.loads(config.read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise AdapterError(f"{config} cannot be read: {error}.") from error
    if not isinstance(base, str) or not base:
        raise AdapterError(f"{config} names no base model; write it as base_model_name_or_path.")
    return Origin(ModelSection(name=base))


def load_adapted(folder: Path, *, trust_remote_code: bool = False) -> Adapted:
    """Load what `qpeft train` left in `folder`. Raises: OutputError, ModelError or AdapterError."""
    recipe = read_recipe(folder)
    loaded = load_onto(recipe.model, folder, trust_remote_code=trust_remote_code)
    return Adapted(loaded.model, loaded.tokenizer, recipe)


def load_onto(base: ModelSection, folder: Path, *, trust_remote_code: bool = False) -> AdaptedModel:
    """The base model with the adapter in `folder`.

    Args:
        base: as the folder names it. Its own `trust_remote_code` permits nothing: the folder may be anybody's.
        folder: of the adapter.
        trust_remote_code: whether the user permits that code of the base model is run.

    Raises: ModelError, also where that code is needed and not permitted; AdapterError.
    """
    if base.trust_remote_code and not trust_remote_code:
        raise ModelError(
            f"{folder} was trained on {base.name} with Python code that comes with that model. If you trust the model, "
            "say --trust-remote-code. Nothing was run."
        )
    base = base.model_copy(update={"trust_remote_code": trust_remote_code})
    tokenizer = load_tokenizer(base.name, chat_template=base.chat_template, trust_remote_code=trust_remote_code)
    model = base_model(base)
    if (fault := reading(model, base.name).padding_fault(tokenizer)) is not None:
        raise ModelError(fault)
    return AdaptedModel(load_adapter(model, folder), tokenizer)

"""A trained adapter on its base model, as commands that ask it need it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from qpeft.adapters.load import load_adapter
from qpeft.models import load_tokenizer
from qpeft.runs import read_record
from qpeft.training.config import parse_recipe
from qpeft.training.sections import Recipe
from qpeft.training.setup import base_model


@dataclass(frozen=True)
class Adapted:
    """The model with its adapter, in evaluation mode, and the recipe that made it."""

    model: PeftModel
    tokenizer: PreTrainedTokenizerBase
    recipe: Recipe

    def without_adapter(self, disabled: bool) -> AbstractContextManager[None]:
        """The base model alone inside, if `disabled`."""
        context: AbstractContextManager[None] = self.model.disable_adapter() if disabled else nullcontext()
        return context


def read_recipe(folder: Path) -> Recipe:
    """The recipe of the run in `folder`. Raises: OutputError or RecipeError."""
    return parse_recipe(read_record(folder).get("recipe", {}), source=str(folder / "run.json"))


def load_adapted(folder: Path) -> Adapted:
    """Load what `qpeft train` left in `folder`. Raises: OutputError, ModelError or AdapterError."""
    recipe = read_recipe(folder)
    options = recipe.model
    tokenizer = load_tokenizer(
        options.name, chat_template=options.chat_template, trust_remote_code=options.trust_remote_code
    )
    return Adapted(load_adapter(base_model(options), folder), tokenizer, recipe)

"""Training runs: a recipe in, an adapter folder out."""

from typing import TYPE_CHECKING, Any

from qpeft.training.config import load_recipe
from qpeft.training.sections import Recipe

if TYPE_CHECKING:
    from qpeft.training.recipe import TrainedRun, rehearse, train

__all__ = ["Recipe", "TrainedRun", "load_recipe", "rehearse", "train"]


def __getattr__(name: str) -> Any:
    # Who only reads recipes need not wait for transformers' Trainer and all that it imports.
    if name in ("TrainedRun", "rehearse", "train"):
        from qpeft.training import recipe  # noqa: PLC0415

        return getattr(recipe, name)
    raise AttributeError(f"module 'qpeft.training' has no attribute {name!r}")

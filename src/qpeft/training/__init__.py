"""Training runs: a recipe in, an adapter folder out."""

from qpeft.training.config import Recipe, load_recipe
from qpeft.training.recipe import TrainedRun, train

__all__ = ["Recipe", "TrainedRun", "load_recipe", "train"]

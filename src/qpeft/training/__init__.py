"""Training runs: a recipe in, an adapter folder out."""

from qpeft.training.config import load_recipe
from qpeft.training.recipe import TrainedRun, train
from qpeft.training.sections import Recipe

__all__ = ["Recipe", "TrainedRun", "load_recipe", "train"]

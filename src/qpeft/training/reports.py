"""Loggers beside the console: TensorBoard and Weights & Biases."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback, WandbCallback

from qpeft.errors import RecipeError
from qpeft.training.sections import TrainingSection

TENSORBOARD_FOLDER = "tensorboard"


def reporters(options: TrainingSection, folder: Path) -> list[TrainerCallback]:
    """The loggers of a recipe. Raises: RecipeError if one that it names is not installed.

    Args:
        options: of the recipe.
        folder: of the run; TensorBoard's files go into `TENSORBOARD_FOLDER` in it.
    """
    return [_tensorboard(folder) if name == "tensorboard" else _Wandb() for name in report_names(options)]


def report_names(options: TrainingSection) -> list[str]:
    """The names of the loggers. Raises: RecipeError if one that the recipe names is not installed."""
    wanted = options.report_to
    if wanted == "none":
        return []
    if wanted == "auto":
        return ["tensorboard"] if _is_installed("tensorboard") else []
    names = [wanted] if isinstance(wanted, str) else wanted
    for name in names:
        if not _is_installed(name):
            raise RecipeError(f"'training.report_to': {name} is not installed: pip install {name}, or take it out.")
    return list(dict.fromkeys(names))


class _Wandb(WandbCallback):
    """Says in a sentence why W&B does not start, as it does not without a key."""

    def setup(self, *args: Any, **options: Any) -> None:
        try:
            super().setup(*args, **options)
        except Exception as error:  # it has many of its own, and those of its settings
            raise RecipeError(
                f"'training.report_to': W&B does not start: {' '.join(str(error).split())} Log in (wandb login), set "
                "WANDB_MODE=offline, or take wandb out and continue with --resume."
            ) from error


def _tensorboard(folder: Path) -> TrainerCallback:
    callback = TensorBoardCallback()
    # Not below checkpoints, where transformers would put it; a resumed run goes on in the same folder.
    callback.logging_dir = str(folder / TENSORBOARD_FOLDER)
    return callback


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None

"""Benchmarks, one file and one row each. `TASKS` are graded here; CPsyCounE (`cpsycoune`) needs a judge."""

import importlib
import sys
import warnings
from difflib import get_close_matches
from importlib.metadata import entry_points

from qpeft.errors import TaskError
from qpeft.evaluation.tasks.competition_maths import Math
from qpeft.evaluation.tasks.cpsycound import CPsyCounD, CPsyCounDWords
from qpeft.evaluation.tasks.gsm8k import Gsm8k
from qpeft.evaluation.tasks.task import AbstractTask
from qpeft.evaluation.tasks.word_problems import WordProblems

TASKS: dict[str, AbstractTask] = {
    "word_problems": WordProblems(),
    "gsm8k": Gsm8k(),
    "math": Math(),
    "cpsycound": CPsyCounD(),
    "cpsycound_words": CPsyCounDWords(),
}
"""By the names that recipes and commands know. `qpeft eval --help` reads them from this text, without importing it."""


def load_plugins() -> None:
    """Import what other packages announce under `qpeft.tasks`: modules that add a row of the entry's name to `TASKS`.

    One that fails is left out with a warning, so that it keeps no run from its own task.
    """
    for entry in entry_points(group="qpeft.tasks"):
        # A program that imports the other package first is still at it, and the row comes at the end.
        is_under_way = entry.module in sys.modules
        try:
            importlib.import_module(entry.module)
            if not is_under_way and entry.name not in TASKS:
                raise TaskError(f"{entry.module} adds no row of this name to TASKS")
        except Exception as error:
            warnings.warn(f"The task {entry.name!r} cannot be used: {error}", stacklevel=2)


def find_task(name: str) -> AbstractTask:
    """Return the task of that name. Raises: TaskError naming the nearest, or all."""
    if name not in TASKS:
        near = get_close_matches(name, TASKS)
        hint = f"Did you mean {near[0]}?" if near else f"There are {', '.join(TASKS)}."
        raise TaskError(f"There is no task {name!r}. {hint} Tasks of lm-eval are scored by qpeft eval --tasks.")
    return TASKS[name]


__all__ = ["TASKS", "AbstractTask", "find_task", "load_plugins"]

"""Benchmarks, one file and one row each. `TASKS` are graded here; CPsyCounE (`cpsycoune`) needs a judge."""

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

# Classes of other packages. One that fails must not keep a run from its own tasks.
for _entry in entry_points(group="qpeft.tasks"):
    try:
        _task = _entry.load()()
        if not isinstance(_task, AbstractTask) or _task.name != _entry.name or _entry.name in TASKS:
            raise TypeError(f"{_entry.value} must be a class of AbstractTask with this name, which nobody else has")
        TASKS[_entry.name] = _task
    except Exception as error:  # noqa: PERF203  (whatever another package raises)
        warnings.warn(f"The task {_entry.name!r} cannot be used: {error}", stacklevel=2)


def find_task(name: str) -> AbstractTask:
    """Return the task of that name. Raises: TaskError naming the nearest, or all."""
    if name not in TASKS:
        near = get_close_matches(name, TASKS)
        hint = f"Did you mean {near[0]}?" if near else f"There are {', '.join(TASKS)}."
        raise TaskError(f"There is no task {name!r}. {hint} Tasks of lm-eval are scored by qpeft eval --tasks.")
    return TASKS[name]


__all__ = ["TASKS", "AbstractTask", "find_task"]

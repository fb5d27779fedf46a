"""Benchmarks, one file each. `TASKS` are graded here; CPsyCounE (`cpsycoune`) needs a judge."""

from difflib import get_close_matches

from qpeft.errors import TaskError
from qpeft.evaluation.tasks.competition_maths import Math
from qpeft.evaluation.tasks.cpsycound import CPsyCounD, CPsyCounDWords
from qpeft.evaluation.tasks.gsm8k import Gsm8k
from qpeft.evaluation.tasks.task import AbstractTask
from qpeft.evaluation.tasks.word_problems import WordProblems

TASKS: dict[str, AbstractTask] = {
    task.name: task for task in (WordProblems(), Gsm8k(), Math(), CPsyCounD(), CPsyCounDWords())
}


def find_task(name: str) -> AbstractTask:
    """The task of that name. Raises: TaskError naming the nearest, or all."""
    if name not in TASKS:
        near = get_close_matches(name, TASKS)
        hint = f"Did you mean {near[0]}?" if near else f"There are {', '.join(TASKS)}."
        raise TaskError(f"There is no task {name!r}. {hint} Tasks of lm-eval are scored by qpeft eval --tasks.")
    return TASKS[name]


__all__ = ["TASKS", "AbstractTask", "find_task"]

"""Rewards of sampled answers: a task's grade, a length, a format, or a function of the user's, checked and counted."""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

from qpeft.errors import RecipeError
from qpeft.evaluation import find_task
from qpeft.evaluation.tasks import TASKS

BUILT_IN = {
    "short": "1 for an empty answer, falling in a line to 0 at max_completion_length tokens",
    "format": "1 if the answer matches the regular expression `pattern`, else 0",
}
"""Rewards that are no task: name, and what they give."""


class Reward:
    """A reward as TRL calls it, which says whose answer it stumbled over.

    Args:
        name: for progress, records and errors.
        function: TRL's signature: keywords `prompts`, `completions`, `completion_ids` and the columns of the data,
            among them `answer`, the reference; returns a number for each completion, None where it has no opinion.
    """

    def __init__(self, name: str, function: Callable[..., Sequence[Any]]) -> None:
        self.name = self.__name__ = name
        self._function = function

    def __call__(self, *, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        """Return the rewards of completions.

        Args:
            prompts: messages of each.
            completions: the answers, as messages.
            columns: one entry per completion.

        Raises: RecipeError if the function raises, or returns another number of rewards, or one that is no finite
            number.
        """
        try:
            found = list(self._function(prompts=prompts, completions=completions, **columns))
        except Exception as error:
            raise RecipeError(
                f"The reward {self.name!r} raised {type(error).__name__}: {error}. It was given {len(prompts)} "
                f"answers, the first to {_opening(prompts)!r}: {_text(completions[0])!r:.200}."
            ) from error
        if len(found) != len(completions):
            raise RecipeError(f"The reward {self.name!r} returned {len(found)} rewards for {len(completions)} answers.")
        rewards: list[float | None] = []
        for place, value in enumerate(found):
            if value is not None and not (isinstance(value, Real) and math.isfinite(value)):
                raise RecipeError(
                    f"The reward {self.name!r} gave {value!r:.60} for an answer to {_opening(prompts[place:])!r}; a "
                    "finite number is needed, or None for no opinion."
                )
            rewards.append(None if value is None else float(value))
        return rewards


def load_reward(name: str, *, max_completion_length: int, pattern: str | None = None) -> Reward:
    """Return a reward by its name: a task of `qpeft eval`, one of `BUILT_IN`, or 'module:function' of the user's.

    Args:
        name: from the recipe. A module is imported because the recipe's author names it, never for an adapter.
        max_completion_length: tokens at which an answer is cut off.
        pattern: regular expression of 'format'.

    Raises: RecipeError for an unknown name, or a function that cannot be imported.
    """
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            function = getattr(importlib.import_module(module), attribute)
        except Exception as error:
            raise RecipeError(f"The reward {name!r} cannot be imported: {type(error).__name__}: {error}.") from error
        if not callable(function):
            raise RecipeError(f"The reward {name!r} is no function but {type(function).__name__}.")
        return Reward(name, function)
    if name == "short":

        def shortness(*, completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
            return [1 - min(1.0, len(ids) / max_completion_length) for ids in completion_ids]

        return Reward(name, shortness)
    if name == "format":
        if pattern is None:
            raise RecipeError("The reward 'format' needs a pattern: {name: format, pattern: '####'}.")
        try:
            compiled = re.compile(pattern, re.DOTALL)
        except re.error as error:
            raise RecipeError(
                f"The pattern {pattern!r} of the reward 'format' is no regular expression: {error}."
            ) from error

        def matches(*, completions: Sequence[Any], **_: Any) -> list[float]:
            return [float(compiled.search(_text(completion)) is not None) for completion in completions]

        return Reward(name, matches)
    if name not in TASKS:
        raise RecipeError(
            f"There is no reward {name!r}. There are the tasks {', '.join(TASKS)}; {', '.join(BUILT_IN)}; and "
            "functions of your own, as 'module:function'."
        )
    task = find_task(name)
    # The first metric of a task is the one that its users look at.
    metric = next(iter(task.metrics))

    def grade(*, completions: Sequence[Any], answer: Sequence[str], **_: Any) -> list[float]:
        grades = zip(completions, answer, strict=True)
        return [task.grade(_text(completion), expected)[metric] for completion, expected in grades]

    return Reward(name, grade)


def _text(completion: Any) -> str:
    """Return the text of a completion, which TRL gives as messages where prompts are messages."""
    return completion if isinstance(completion, str) else str(completion[-1]["content"]).strip()


def _opening(prompts: Sequence[Any]) -> str:
    """Return the start of the first prompt, for errors."""
    prompt = prompts[0] if prompts else ""
    text = prompt if isinstance(prompt, str) else prompt[-1]["content"]
    return text[:100]


def reward_row(example: Any) -> Mapping[str, Any]:
    """Return an example as a row for GRPO: the prompt's messages, and the reference answer."""
    prompt = [{"role": message.role, "content": message.content} for message in example.question]
    return {"prompt": prompt, "answer": example.answer}

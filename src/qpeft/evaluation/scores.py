"""Everything that a recipe asks to be measured of one model: held-out loss, and answers to a task."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from qpeft.data import Encoded, Example
from qpeft.errors import DataError
from qpeft.evaluation.generation import generate, require_room
from qpeft.evaluation.loss import held_out_loss
from qpeft.evaluation.tasks import AbstractTask
from qpeft.runs.bars import OnProgress, to_nobody


@dataclass(frozen=True)
class Answer:
    """One generated answer and what it is worth.

    `right`: None for a task without right and wrong. `grades`: every metric of the task. `example`: place of the
    held-out example that it belongs to; a dialogue has as many answers as the task asks for. `cut`: whether it was cut
    off before it ended.
    """

    question: str
    expected: str
    text: str
    right: bool | None
    grades: Mapping[str, float]
    example: int
    cut: bool = False


@dataclass(frozen=True)
class Scores:
    """`loss`: held-out loss in nats per token over `tokens` tokens. `answers`: empty if none were asked for.

    `item_sums`, `item_tokens`: nats and trained-on tokens of every example, in their order. `task`: what the answers
    are to; None without any. `overall`: its figures of all answers together.
    """

    loss: float
    tokens: int
    item_sums: tuple[float, ...]
    item_tokens: tuple[int, ...]
    answers: tuple[Answer, ...] = ()
    task: AbstractTask | None = None
    overall: Mapping[str, float] = field(default_factory=dict)

    @property
    def perplexity(self) -> float:
        """exp(loss)."""
        return math.exp(self.loss)

    @property
    def exact_match(self) -> float | None:
        """Share of right answers, in [0, 1]; None if none were asked for, or none is right or wrong."""
        rights = [answer.right for answer in self.answers if answer.right is not None]
        return statistics.fmean(rights) if rights else None

    @property
    def cut(self) -> int:
        """Number of answers that were cut off before they ended."""
        return sum(answer.cut for answer in self.answers)

    @property
    def metrics(self) -> dict[str, float]:
        """The task's figures, in [0, 1]: of all answers together, and means over answers."""
        # Without answers there are no means; a task can still be asked of no example.
        names = self.task.metrics if self.task and self.answers else ()
        return {**self.overall, **{name: statistics.fmean(one.grades[name] for one in self.answers) for name in names}}

    def to_dict(self) -> dict[str, Any]:
        """Return the figures, for a record; those of single examples and answers under `items`."""
        return {
            "loss": self.loss,
            "tokens": self.tokens,
            "task": self.task.name if self.task else None,
            "metrics": self.metrics,
            "exact_match": self.exact_match,
            "answered": len(self.answers),
            "cut": self.cut,
            "items": {
                "nats": list(self.item_sums),
                "tokens": list(self.item_tokens),
                "right": [answer.right for answer in self.answers if answer.right is not None],
                "grades": {
                    name: [answer.grades[name] for answer in self.answers]
                    for name in (self.task.metrics if self.task else ())
                },
                "examples": [answer.example for answer in self.answers],
            },
        }


def score(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    encoded: Sequence[Encoded],
    *,
    task: AbstractTask | None = None,
    max_new_tokens: int | None = None,
    items: int | None = None,
    on_progress: OnProgress = to_nobody,
) -> Scores:
    """Return the held-out loss of all examples, and answers to the first `items` if a task is given.

    Args:
        model: a causal language model, with or without adapters.
        tokenizer: its tokenizer.
        examples: held-out dialogues; the last assistant turn of each is what most tasks ask for.
        encoded: the same, encoded.
        task: how answers are asked for and graded; None for the loss alone.
        max_new_tokens: longest generated answer; None for the task's own.
        items: how many examples to answer; None for all.
        on_progress: told how many examples were read, then how many questions were answered.

    Raises:
        TaskError: a package that grades is missing.
        DataError: an example that the task cannot ask or grade, or that is too long.
    """
    if task is None:
        return Scores(**vars(held_out_loss(model, encoded, on_progress=on_progress)))
    # Before the loss, which takes long: what cannot be asked should be said at once.
    asked = answerable(model, tokenizer, examples, task, max_new_tokens=max_new_tokens, items=items)
    questions, longest = [example.question for _, example in asked], max_new_tokens or task.max_new_tokens
    loss = held_out_loss(model, encoded, on_progress=on_progress)
    cut: set[int] = set()
    answered = 0

    def count(more: int) -> None:
        nonlocal answered
        answered += more
        on_progress("answers", answered, len(questions))

    count(0)
    texts = generate(model, tokenizer, questions, max_new_tokens=longest, on_batch=count, on_cut=cut.add)
    answers = []
    for number, ((place, example), text) in enumerate(zip(asked, texts, strict=True)):
        grades = task.grade(text, example.answer)
        # The first metric decides: `strict` for tasks that have several.
        right = grades[next(iter(task.metrics))] == 1 if task.tells_right else None
        question = example.question[-1].content
        answers.append(Answer(question, example.answer, text, right, grades, place, number in cut))
    overall = task.overall(texts, [example.answer for _, example in asked])
    return Scores(**vars(loss), answers=tuple(answers), task=task, overall=overall)


def answerable(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    task: AbstractTask,
    *,
    max_new_tokens: int | None,
    items: int | None,
) -> list[tuple[int, Example]]:
    """Return what a task asks of the first examples: places of examples, and dialogues that end with the right answer.

    Args:
        model, tokenizer, examples, task, max_new_tokens, items: as for `score`; the model may be a skeleton.

    Raises: as `score`.
    """
    task.require_packages()
    asked = [(place, one) for place, example in enumerate(examples[:items]) for one in task.asked(example)]
    for _, example in asked:
        if not example.question:
            raise DataError(
                f"{example.source}: {task.name} asks for answers to questions, and this example has no question."
            )
        task.require(example)
    questions, sources = [example.question for _, example in asked], [example.source for _, example in asked]
    require_room(model, tokenizer, questions, sources, max_new_tokens=max_new_tokens or task.max_new_tokens)
    return asked

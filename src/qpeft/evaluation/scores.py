"""Everything that a recipe asks to be measured of one model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from qpeft.data import Encoded, Example
from qpeft.errors import DataError
from qpeft.evaluation.answers import final_number, is_right
from qpeft.evaluation.generation import generate
from qpeft.evaluation.held_out import held_out_loss


@dataclass(frozen=True)
class Answer:
    """One generated answer and its verdict."""

    question: str
    expected: str
    text: str
    right: bool


@dataclass(frozen=True)
class Scores:
    """`loss`: held-out loss in nats per token over `tokens` tokens. `answers`: empty if none were asked for."""

    loss: float
    tokens: int
    answers: tuple[Answer, ...] = ()

    @property
    def perplexity(self) -> float:
        """exp(loss)."""
        return math.exp(self.loss)

    @property
    def exact_match(self) -> float | None:
        """Share of right answers, in [0, 1]; None if none were asked for."""
        if not self.answers:
            return None
        return sum(answer.right for answer in self.answers) / len(self.answers)

    def to_dict(self) -> dict[str, float | int | None]:
        """The figures, for a record."""
        return {
            "loss": self.loss,
            "tokens": self.tokens,
            "exact_match": self.exact_match,
            "answered": len(self.answers),
        }


def score(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    encoded: Sequence[Encoded],
    *,
    exact_match: bool = False,
    max_new_tokens: int = 64,
    items: int | None = None,
    on_answers: Callable[[int], None] = lambda _: None,
) -> Scores:
    """Held-out loss on all examples, and exact match on the first `items` if asked for.

    Args:
        model: a causal language model, with or without adapters.
        tokenizer: its tokenizer.
        examples: held-out dialogues; the last assistant turn of each is what exact match asks for.
        encoded: the same, encoded.
        exact_match: whether to generate answers; the right one is the number that the example's own ends on.
        max_new_tokens: longest generated answer.
        items: how many examples to answer; None for all.
        on_answers: told how many more were answered, for progress bars.

    Raises: DataError if a right answer holds no number, since then nothing could match it.
    """
    loss = held_out_loss(model, encoded)
    if not exact_match:
        return Scores(loss.loss, loss.tokens)
    chosen = examples[:items]
    for example in chosen:
        if not example.question:
            raise DataError(f"{example.source}: exact match answers questions, and this example has none.")
        if final_number(example.answer) is None:
            raise DataError(f"{example.source}: exact match compares numbers, and this answer ends on none.")
    texts = generate(
        model, tokenizer, [example.question for example in chosen], max_new_tokens=max_new_tokens, on_batch=on_answers
    )
    answers = tuple(
        Answer(example.question[-1].content, example.answer, text, is_right(text, example.answer))
        for example, text in zip(chosen, texts, strict=True)
    )
    return Scores(loss.loss, loss.tokens, answers)

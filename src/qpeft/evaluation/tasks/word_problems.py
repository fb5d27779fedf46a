"""Small word problems: right if the answer ends on the same number, however it is written."""

from __future__ import annotations

from typing import ClassVar

from qpeft.data import Example
from qpeft.errors import DataError
from qpeft.evaluation.answers import final_number, is_right
from qpeft.evaluation.tasks.task import AbstractTask


class WordProblems(AbstractTask):
    """Exact match of the number that an answer ends on."""

    name: ClassVar = "word_problems"
    metrics: ClassVar = {"exact_match": "exact match"}
    max_new_tokens: ClassVar = 64

    def require(self, example: Example) -> None:
        """Raises: DataError if the right answer holds no number, since then nothing could match it."""
        if final_number(example.answer) is None:
            raise DataError(f"{example.source}: exact match compares numbers, and this answer ends on none.")

    def grade(self, text: str, expected: str) -> dict[str, float]:
        """`exact_match`: 12, 12.0 and $12 agree."""
        return {"exact_match": float(is_right(text, expected))}

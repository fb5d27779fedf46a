"""GSM8K as lm-eval (gsm8k, version 3) scores it: once by the mark before the number, once by the last number."""

from __future__ import annotations

import re
from typing import ClassVar

from qpeft.data import Example
from qpeft.errors import DataError
from qpeft.evaluation.tasks.task import AbstractTask
from qpeft.evaluation.tasks.word_problems import plain_numbers

MARK = "#### "
_MARKED = re.compile(MARK + r"(-?[\d.,]+)", re.ASCII)
_ANY = re.compile(r"-?[$\d.,]{2,}|-?\d+", re.ASCII)
"""A run of digits, points, commas and dollar signs; a single character of it only if it is a digit."""


class Gsm8k(AbstractTask):
    """Equality of numbers as text, without commas, dollar signs and a full stop at the end: 12.0 is not 12.

    The rules are those of lm-eval's task, so that figures compare with it where prompts are the same. One departure:
    numbers in typographic signs are read, where lm-eval overlooks a minus that is no hyphen.
    """

    name: ClassVar = "gsm8k"
    metrics: ClassVar = {"strict": "strict", "flexible": "flexible"}
    max_new_tokens: ClassVar = 256

    def require(self, example: Example) -> None:
        """Raises: DataError if the right answer has no number after the mark."""
        if _MARKED.search(plain_numbers(example.answer)) is None:
            raise DataError(f"{example.source}: gsm8k needs an answer that ends on '{MARK}NUMBER', and this has none.")

    def grade(self, text: str, expected: str) -> dict[str, float]:
        """`strict`: the first number after '#### ' is right, so the form was learned too. `flexible`: the last is."""
        plain = plain_numbers(text)
        marked, numbers = _MARKED.search(plain), _ANY.findall(plain)
        right = _bare(plain_numbers(expected).rpartition(MARK)[2])
        return {
            "strict": float(marked is not None and _bare(marked[1]) == right),
            "flexible": float(bool(numbers) and _bare(numbers[-1]) == right),
        }


def _bare(number: str) -> str:
    # The same signs as lm-eval's `regexes_to_ignore`, so 1,000. is 1000 and 12.0 stays another text than 12.
    return number.replace(",", "").replace("$", "").strip().removesuffix(".")

"""Exact match for maths: the final number of an answer against the right one."""

from __future__ import annotations

import re
from decimal import Decimal

_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|[-+]?\.\d+")


def final_number(text: str) -> Decimal | None:
    """The number that an answer ends on: the first after its last '####' (GSM8K's mark) if it has one, else its last.

    Thousands separators are understood; a currency sign or unit beside the number does no harm. None without a number.
    """
    _, mark, after = text.rpartition("####")
    numbers = _NUMBER.findall(after if mark else text)
    if not numbers:
        return None
    number = numbers[0] if mark else numbers[-1]
    return Decimal(number.replace(",", ""))


def is_right(answer: str, expected: str) -> bool:
    """Whether both end on the same number, so that 12, 12.0 and $12 agree. An answer without a number is wrong."""
    number = final_number(answer)
    return number is not None and number == final_number(expected)

"""Small word problems: right if the answer ends on the same number, however it is written."""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from typing import ClassVar

from qpeft.data import Example
from qpeft.errors import DataError
from qpeft.evaluation.tasks.task import AbstractTask

_SIGN_DASHES = "\u2010\u2011\u2012\u2013"
_SAME = str.maketrans(
    {
        **dict.fromkeys("\u2212\ufe63\uff0d\u2796\u02d7", "-"),
        **{chr(ord(sign) + 0xFEE0): sign for sign in "+.$%/=#"},
        "\uffe5": "¥",
        "\u2044": "/",
        "\u066b": ".",
        "\u066c": ",",
    }
)
"""Signs that mean one thing wherever they stand: minus, full-width signs, the slash of fractions, Arabic separators."""

_SPACES = "\u00a0\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
_CURRENCY = "$€£¥₹"
# A dash is a minus only in front of a number and behind nothing that it could join to it: else it is that of a range.
_DASH_SIGN = re.compile(rf"(?<![\w)\]}}%])[{_SIGN_DASHES}](?=\\?[{_CURRENCY}]?\.?\d)")
_FULL_WIDTH_COMMA = re.compile("(?<=[\uff10-\uff19])\uff0c(?=[\uff10-\uff19]{3})")
_GROUPED = re.compile(rf"(?<![\d.,])\d{{1,3}}(?:[{_SPACES}\u2019]\d{{3}})+(?!\d)")
_WITH_FRACTION = re.compile(f"(?:(\\d+)[ {_SPACES}]?)?([\u00bc-\u00be\u2150-\u215e])")

_APOSTROPHES = re.compile(r"(?<![\d.,'])\d{1,3}(?:'\d{3})+(?![\d'])")
_TEX_GROUP = re.compile(r"(?<=\d)(?:\{,\}|\{\\,\}|,\\!|\\[,;: ])(?=\d{3}(?!\d))")
_TEX_FRACTION = re.compile(r"(\d?)\\[dt]?frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}")
# Only behind one or two digits: "100 200 300" are three numbers to most readers.
_SPACED = re.compile(r"(?<![\d.,/])\d{1,2}(?: \d{3})+(?![\d/])")
_NUMBER = re.compile(
    rf"""(?P<sign>(?<![\w)\]}}%])[-+])?   # not between two numbers, nor in a word such as COVID-19
    \\?[{_CURRENCY}]?(?:
      (?<![\d/.,])(?:(?P<whole>\d+)[ ])?(?P<upper>\d+)/(?P<lower>0*[1-9]\d*)(?![\d/]|\.\d)   # no date
    | (?P<number>(?:\d{{1,2}}(?:,\d{{2}})+,\d{{3}}(?!\d)|\d{{1,3}}(?:,\d{{3}})+|\d+)(?:\.\d+)?|\.\d+)
    )""",
    re.VERBOSE,
)


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


def is_right(answer: str, expected: str) -> bool:
    """Whether both end on the same number, so that 12, 12.0 and $12 agree. An answer without a number is wrong."""
    number = final_number(answer)
    return number is not None and number == final_number(expected)


def final_number(text: str) -> Decimal | None:
    """Return the number that an answer ends on, or None where it has no number.

    That is the first after its last '####' (GSM8K's mark) if it has one, else its last. Thousands separators,
    fractions, typographic and TeX spellings are understood; a currency sign or unit beside the number does no harm.
    """
    _, mark, after = plain_numbers(text).rpartition("####")
    found = _TEX_FRACTION.sub(lambda match: f"{match[1]} {match[2]}/{match[3]}".strip(), _TEX_GROUP.sub(",", after))
    # ⅓ has no decimal that ends, so it was left: as 1/3 it is a value too.
    found = _WITH_FRACTION.sub(
        lambda match: f"{match[1] or ''} {unicodedata.normalize('NFKC', match[2])}".strip().replace("\u2044", "/"),
        found,
    )
    # "x = - 5" is a minus; "3 - 5" is not.
    found = re.sub(rf"(?<==)\s*-\s+(?=\\?[{_CURRENCY}]?\.?\d)", "-", found)
    for grouped in (_SPACED, _APOSTROPHES):
        found = grouped.sub(lambda match: re.sub("[ ']", ",", match[0]), found)
    numbers = list(_NUMBER.finditer(found))
    if not numbers:
        return None
    number = numbers[0] if mark else numbers[-1]
    if number["number"]:
        value = Decimal(number["number"].replace(",", ""))
    else:
        value = Decimal(number["whole"] or 0) + Decimal(number["upper"]) / Decimal(number["lower"])
    return -value if number["sign"] == "-" else value


def plain_numbers(text: str) -> str:
    """Return a text with its numbers in plain signs: minus for dashes that mean it, commas for thin spaces, 2.5 for 2½.

    Plain ASCII stays as it is. Digits of other scripts do too, and fractions without an end, such as ⅓.
    """
    if text.isascii():
        return text
    # Marks of direction and joiners, which nobody sees.
    text = "".join(sign for sign in text if unicodedata.category(sign) != "Cf")
    text = _DASH_SIGN.sub("-", _FULL_WIDTH_COMMA.sub(",", text).translate(_SAME))
    text = _GROUPED.sub(lambda match: re.sub(r"\D", ",", match[0]), text)
    text = _WITH_FRACTION.sub(_with_decimals, text)
    plain = ""
    for sign in text:
        # NFKC makes ASCII of full-width and mathematical digits, and of odd spaces; it would change other letters too.
        normal = unicodedata.normalize("NFKC", sign)
        plain += normal if sign in _SPACES or (sign.isdecimal() and normal.isascii()) else sign
    return plain


def _with_decimals(match: re.Match[str]) -> str:
    value = Decimal(str(unicodedata.numeric(match[2])))
    return match[0] if len(str(value)) > len("0.125") else str(Decimal(match[1] or 0) + value)

"""Exact match for maths: the final number of an answer against the right one."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from qpeft.data import Message
from qpeft.data.dialogues import read_question
from qpeft.data.fields import Template, message, text_of
from qpeft.data.formats import Roles, alpaca_question
from qpeft.data.rows import READERS, Row, listed, read_rows, text_lines
from qpeft.errors import DataError

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


def plain_numbers(text: str) -> str:
    """A text with its numbers in plain signs: minus for dashes that mean it, commas for thin spaces, 2.5 for 2½.

    Plain ASCII stays as it is. Digits of other scripts do too, and fractions without an end, such as ⅓.
    """
    if text.isascii():
        return text
    # Marks of direction and joiners, which nobody sees.
    text = "".join(sign for sign in text if unicodedata.category(sign) != "Cf")
    text = _DASH_SIGN.sub("-", _FULL_WIDTH_COMMA.sub(",", text).translate(_SAME))
    text = _GROUPED.sub(lambda match: re.sub(r"\D", ",", match[0]), text)
    text = _WITH_FRACTION.sub(_with_decimals, text)
    return "".join(_plain_sign(sign) for sign in text)


def _plain_sign(sign: str) -> str:
    if sign.isascii():
        return sign
    plain = unicodedata.normalize("NFKC", sign)  # of full-width and mathematical digits, and of odd spaces
    return plain if sign in _SPACES or (sign.isdecimal() and plain.isascii()) else sign


def _with_decimals(match: re.Match[str]) -> str:
    value = Decimal(str(unicodedata.numeric(match[2])))
    return match[0] if len(str(value)) > len("0.125") else str(Decimal(match[1] or 0) + value)


def final_number(text: str) -> Decimal | None:
    """The number that an answer ends on: the first after its last '####' (GSM8K's mark) if it has one, else its last.

    Thousands separators, fractions, typographic and TeX spellings are understood; a currency sign or unit beside the
    number does no harm. None without a number.
    """
    _, mark, after = plain_numbers(text).rpartition("####")
    found = _TEX_FRACTION.sub(lambda match: f"{match[1]} {match[2]}/{match[3]}".strip(), _TEX_GROUP.sub(",", after))
    found = _WITH_FRACTION.sub(_with_slash, found)
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


def _with_slash(match: re.Match[str]) -> str:
    upper, lower = unicodedata.normalize("NFKC", match[2]).split("\u2044")
    return f"{match[1] or ''} {upper}/{lower}".strip()


def is_right(answer: str, expected: str) -> bool:
    """Whether both end on the same number, so that 12, 12.0 and $12 agree. An answer without a number is wrong."""
    number = final_number(answer)
    return number is not None and number == final_number(expected)


# Questions from a file: rows with a question in one of the usual columns, or lines of text.


TEXT = ".txt"


@dataclass(frozen=True)
class Question:
    """A dialogue up to where the assistant is to speak. `row`: the row that it was made from; `source`: its place."""

    messages: tuple[Message, ...]
    row: Mapping[str, object]
    source: str


def read_questions(
    path: Path, *, system: str | None = None, prompt: str | None = None, roles: Roles | None = None
) -> list[Question]:
    """All questions of a file, in their order, read as training reads rows of the same columns.

    Args:
        path: .jsonl, .json, .csv or .parquet with columns of `COLUMNS` or those of `prompt`; .txt with one a line.
        system: system message for dialogues that have none of their own.
        prompt: template of the question with column names in braces. Rows that lack its columns are read by `COLUMNS`.
        roles: what role names mean that are not known: {"tool": "user"}.

    Raises: DataError for a file that cannot be read or holds no question, or a row without one; it names the line.
    """
    if path.suffix.lower() not in (TEXT, *READERS):
        raise DataError(f"{path}: files of questions end in {', '.join([*READERS, TEXT])}; got '{path.suffix}'.")
    rows = _lines(path) if path.suffix.lower() == TEXT else read_rows(str(path), split="train")
    template = Template("prompt", prompt) if prompt else None
    questions = []
    for row in rows:
        messages = _messages(row, template, roles or {})
        if system and messages[0].role != "system":
            messages = [Message("system", system), *messages]
        questions.append(Question(tuple(messages), row.values, row.source))
    if not questions:
        raise DataError(f"{path} holds no question.")
    return questions


def _lines(path: Path) -> Iterator[Row]:
    try:
        for number, line in text_lines(path):
            if text := line.strip():
                yield Row({"question": text}, f"{path}:{number}")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


def _messages(row: Row, template: Template | None, roles: Roles) -> list[Message]:
    if template is not None and all(column in row.values for column in template.columns):
        return [message("user", template.fill(row), "prompt", row)]
    present = [column for column in COLUMNS if column in row.values]
    if not present:
        wanted = f" or those of the template, {listed(template.columns)}" if template else ""
        raise DataError(
            f"{row.source}: no question in the keys {listed(row.values)}; expected one of {listed(COLUMNS)}{wanted}."
        )
    column = next(filter(row.is_given, present), present[0])
    return COLUMNS[column](row, column, roles)


def _dialogue(row: Row, column: str, roles: Roles) -> list[Message]:
    return read_question(row.structure(column), column, row, roles)


def _plain(row: Row, column: str, _: Roles) -> list[Message]:
    return [message("user", text_of(column, row), f"'{column}'", row)]


def _prompt(row: Row, column: str, roles: Roles) -> list[Message]:
    return (_dialogue if isinstance(row.values[column], list) else _plain)(row, column, roles)


COLUMNS: dict[str, Callable[[Row, str, Roles], list[Message]]] = {
    "messages": _dialogue,
    "conversations": _dialogue,
    "prompt": _prompt,
    "question": _plain,
    "instruction": lambda row, _, __: alpaca_question(row),
}
"""Where a question may stand, the first that a row has and that is not null."""

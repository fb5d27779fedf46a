"""Fields of a row as text, alone or in a template, and texts as messages; anything else is refused with its place."""

from __future__ import annotations

from difflib import get_close_matches
from math import isfinite
from string import Formatter

from qpeft.data.example import Message
from qpeft.data.rows import Row, kind, listed
from qpeft.errors import DataError

NO_NUMBERS = {"nan", "inf", "infinity"}
"""Words that programs write into a table for a missing or too large number, sign and case apart."""


def text_of(column: str, row: Row) -> str:
    """Return the text or number in a column as text. Raises: DataError for anything else, NaN and infinities too.

    Such numbers (NaN, infinities, 1e400) would be learned as the words "nan" and "inf". CSV does not tell words from
    numbers, so there a cell that is nothing but one of these words is refused too.
    """
    value = row.values[column]
    if isinstance(value, str):
        if not row.is_typed and value.strip().lstrip("+-").lower() in NO_NUMBERS:
            raise DataError(
                f"{row.source}: '{column}' is {value.strip()}, which programs write for a number that is missing or "
                "too large. Leave the row out; if the word is meant, write the data as JSONL."
            )
        return value
    # In Python a bool is an int too, and "True" is not what anybody wants to be learned.
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if not isfinite(value):
            raise DataError(
                f"{row.source}: '{column}' must be text or a number; got {value}, a number that is missing or too "
                "large. Leave the row out, or write what is to be learned as text."
            )
        return str(value)
    raise DataError(f"{row.source}: '{column}' must be text or a number; got {kind(value)}.")


def optional_text(column: str, row: Row) -> str:
    """Return `text_of` the column, or "" if it is missing, null or blank."""
    text = text_of(column, row) if row.is_given(column) else ""
    return text if text.strip() else ""


def message(role: str, content: str, where: str, row: Row, *, trained: bool = True) -> Message:
    """Return a message whose text has been checked.

    Args:
        role: one of `example.ROLES`.
        content: its text.
        where: its name in errors, such as "turn 2".
        row: the row that it comes from, for errors.
        trained: whether an answer is trained on.

    Raises: DataError for blank text, or text that cannot be written as UTF-8.
    """
    if not content.strip():
        raise DataError(f"{row.source}: {where} is empty.")
    # JSON can escape half of a surrogate pair, on which a tokenizer would stop hours later.
    try:
        content.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"{row.source}: {where} holds half of a surrogate pair, which is no text.") from error
    return Message(role, content, trained)


class Template:
    """Text with column names in braces. `option` is its name in errors.

    Raises: DataError for a template without columns or with malformed braces.
    """

    def __init__(self, option: str, text: str) -> None:
        try:
            parts = list(Formatter().parse(text))
        except ValueError as error:
            raise DataError(f"The {option} template {text!r} is malformed: {error}.") from error
        # Formatter knows {name!r:>10} and {} too; none of these is a column.
        if any(name == "" or spec or conversion for _, name, spec, conversion in parts):
            raise DataError(f"The {option} template {text!r} may have plain column names in its braces, nothing else.")
        self.columns = tuple(name for _, name, _, _ in parts if name is not None)
        if not self.columns:
            raise DataError(
                f"The {option} template {text!r} names no column; write it in braces, such as {{question}}."
            )
        self._option = option
        self._parts = [(literal, name) for literal, name, _, _ in parts]

    def fill(self, row: Row) -> str:
        """Return the text with the row's values. Raises: DataError for a column that is missing or not text."""
        for column in self.columns:
            if column not in row.values:
                # However unlike: the row has few columns, and one of them is meant.
                near = get_close_matches(column, [str(key) for key in row.values], n=1, cutoff=0.0)
                hint = f" Nearest: '{near[0]}'." if near else ""
                raise DataError(
                    f"{row.source}: the {self._option} template names the column '{column}', "
                    f"but the row has {listed(row.values)}.{hint}"
                )
        return "".join(literal + ("" if name is None else text_of(name, row)) for literal, name in self._parts)


class PairTemplate:
    """A user's message and an answer out of a row.

    Args:
        prompt: the user's message; columns in braces, doubled braces stand for themselves.
        response: the answer, likewise.

    Raises: DataError for a template without columns or with malformed braces.
    """

    def __init__(self, prompt: str, response: str) -> None:
        self._user, self._assistant = Template("prompt", prompt), Template("response", response)
        self.columns = tuple(dict.fromkeys((*self._user.columns, *self._assistant.columns)))

    def messages(self, row: Row) -> list[Message]:
        """Return both templates filled. Raises: DataError if a column is missing or a message is blank."""
        question, answer = self._user.fill(row), self._assistant.fill(row)
        return [message("user", question, "prompt", row), message("assistant", answer, "response", row)]

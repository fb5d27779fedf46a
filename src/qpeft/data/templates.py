"""Rows of any columns, read by two templates with column names in braces."""

from __future__ import annotations

from difflib import get_close_matches
from string import Formatter

from qpeft.data.describe import listed
from qpeft.data.example import Message
from qpeft.data.fields import message, text_of
from qpeft.data.rows import Row
from qpeft.errors import DataError


class PairTemplate:
    """A user's message and an answer out of a row.

    Args:
        prompt: the user's message; columns in braces, doubled braces stand for themselves.
        response: the answer, likewise.

    Raises: DataError for a template without columns or with malformed braces.
    """

    def __init__(self, prompt: str, response: str) -> None:
        self._user, self._assistant = _Template("prompt", prompt), _Template("response", response)
        self.columns = tuple(dict.fromkeys((*self._user.columns, *self._assistant.columns)))

    def messages(self, row: Row) -> list[Message]:
        """The filled templates. Raises: DataError if a column is not there or a message is blank."""
        question, answer = self._user.fill(row), self._assistant.fill(row)
        return [message("user", question, "prompt", row), message("assistant", answer, "response", row)]


class _Template:
    """Text with column names in braces. `option` is its name in errors."""

    def __init__(self, option: str, text: str) -> None:
        try:
            parts = list(Formatter().parse(text))
        except ValueError as error:
            raise DataError(f"The {option} template {text!r} is malformed: {error}.") from error
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
        for column in self.columns:
            if column not in row.values:
                near = get_close_matches(column, [str(key) for key in row.values], n=1, cutoff=0.0)
                hint = f" Nearest: '{near[0]}'." if near else ""
                raise DataError(
                    f"{row.source}: the {self._option} template names the column '{column}', "
                    f"but the row has {listed(row.values)}.{hint}"
                )
        return "".join(literal + ("" if name is None else text_of(name, row)) for literal, name in self._parts)

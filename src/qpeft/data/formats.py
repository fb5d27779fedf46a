"""What the columns of a row mean: one function per format, from a row to messages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from string import Formatter

from qpeft.data.describe import kind, listed, quote
from qpeft.data.example import ROLES, Message
from qpeft.data.rows import Row
from qpeft.errors import DataError


@dataclass(frozen=True)
class RowFormat:
    """A named way to read rows. `to_messages` raises DataError for a row that does not have `columns`."""

    name: str
    columns: tuple[str, ...]
    to_messages: Callable[[Row], list[Message]]


def detect_format(row: Row) -> RowFormat:
    """The first of `FORMATS` whose columns the row has.

    Raises: DataError naming the keys found and the keys expected.
    """
    for row_format in FORMATS:
        if all(column in row.values for column in row_format.columns):
            return row_format
    expected = ", or ".join(" and ".join(f"'{column}'" for column in f.columns) for f in FORMATS)
    raise DataError(
        f"{row.source}: no known format has the keys {listed(row.values)}. Expected {expected}; "
        'for other columns give both templates, such as prompt: "{instruction}" and response: "{output}".'
    )


def template_format(prompt: str | None, response: str | None) -> RowFormat | None:
    """The format of two templates with column names in braces; None if neither is given.

    Raises: DataError if only one is given, or for a template without columns or with malformed braces.
    """
    if prompt is None and response is None:
        return None
    if prompt is None or response is None:
        given, missing = ("response", "prompt") if prompt is None else ("prompt", "response")
        raise DataError(f"A {given} template needs a {missing} template beside it.")
    user, assistant = _Template("prompt", prompt), _Template("response", response)

    def to_messages(row: Row) -> list[Message]:
        question, answer = user.fill(row), assistant.fill(row)
        return [_message("user", question, "prompt", row), _message("assistant", answer, "response", row)]

    return RowFormat("templates", tuple(dict.fromkeys((*user.columns, *assistant.columns))), to_messages)


class _Template:
    """Text with column names in braces; doubled braces stand for themselves. `option` is its name in errors."""

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
        return "".join(literal + ("" if name is None else _text(name, row)) for literal, name in self._parts)


def _dialogue(row: Row) -> list[Message]:
    """The turns up to the last answer. What a user says after it is not trained on, so it is left out, blank or not."""
    _require(("messages",), row)
    turns = row.values["messages"]
    if not isinstance(turns, list) or not turns:
        raise DataError(f"{row.source}: 'messages' must be a list of turns; got {kind(turns)}.")
    pairs = [_role_and_content(turn, f"turn {number}", row) for number, turn in enumerate(turns, start=1)]
    length = max((i for i, (role, _) in enumerate(pairs, start=1) if role == "assistant"), default=0)
    if length == 0:
        raise DataError(f"{row.source}: the dialogue has no assistant turn, so there is nothing to train on.")
    return [_message(*pair, f"turn {number}", row) for number, pair in enumerate(pairs[:length], start=1)]


def _role_and_content(turn: object, where: str, row: Row) -> tuple[str, str]:
    if not isinstance(turn, dict):
        raise DataError(f"{row.source}: {where} must be an object with 'role' and 'content'; got {kind(turn)}.")
    if "role" not in turn or "content" not in turn:
        raise DataError(f"{row.source}: {where} has the keys {listed(turn)}; expected 'role' and 'content'.")
    role, content = turn["role"], turn["content"]
    if role not in ROLES:
        raise DataError(f"{row.source}: {where} has the role {quote(role)}; expected one of {listed(ROLES)}.")
    if not isinstance(content, str):
        raise DataError(f"{row.source}: the content of {where} must be text; got {kind(content)}.")
    return role, content


def _pair(user: str, assistant: str) -> Callable[[Row], list[Message]]:
    def to_messages(row: Row) -> list[Message]:
        _require((user, assistant), row)
        return [
            _message("user", _text(user, row), f"'{user}'", row),
            _message("assistant", _text(assistant, row), f"'{assistant}'", row),
        ]

    return to_messages


FORMATS = (
    RowFormat("messages", ("messages",), _dialogue),
    RowFormat("prompt and completion", ("prompt", "completion"), _pair("prompt", "completion")),
    RowFormat("question and answer", ("question", "answer"), _pair("question", "answer")),
)


def _require(columns: tuple[str, ...], row: Row) -> None:
    for column in columns:
        if column not in row.values:
            raise DataError(
                f"{row.source}: '{column}' is missing. The row has {listed(row.values)}; "
                f"expected {listed(columns)}, as in the first row."
            )


def _message(role: str, content: str, where: str, row: Row) -> Message:
    if not content.strip():
        raise DataError(f"{row.source}: {where} is empty.")
    try:
        content.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"{row.source}: {where} holds half of a surrogate pair, which is no text.") from error
    return Message(role, content)


def _text(column: str, row: Row) -> str:
    value = row.values[column]
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    raise DataError(f"{row.source}: '{column}' must be text or a number; got {kind(value)}.")

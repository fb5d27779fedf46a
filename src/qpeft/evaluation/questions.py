"""Questions from a file: rows with a question in one of the usual columns, or lines of text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Formatter

from qpeft.data import Message
from qpeft.data.describe import kind, listed
from qpeft.data.example import ROLES
from qpeft.data.rows import READERS, Row, read_rows
from qpeft.errors import DataError

TEXT = ".txt"


@dataclass(frozen=True)
class Question:
    """A dialogue up to where the assistant is to speak. `row`: the row that it was made from; `source`: its place."""

    messages: tuple[Message, ...]
    row: Mapping[str, object]
    source: str


def read_questions(path: Path, *, system: str | None = None, prompt: str | None = None) -> list[Question]:
    """All questions of a file, in their order.

    Args:
        path: .jsonl, .json, .csv or .parquet with columns of `COLUMNS` or those of `prompt`; .txt with one a line.
        system: system message for dialogues that have none of their own.
        prompt: template of the question with column names in braces. Rows that lack its columns are read by `COLUMNS`.

    Raises: DataError for a file that cannot be read or holds no question, or a row without one; it names the line.
    """
    if path.suffix.lower() not in (TEXT, *READERS):
        raise DataError(f"{path}: files of questions end in {', '.join([*READERS, TEXT])}; got '{path.suffix}'.")
    rows = _lines(path) if path.suffix.lower() == TEXT else read_rows(str(path), split="train")
    questions = []
    for row in rows:
        messages = _messages(row, prompt)
        if system and messages[0].role != "system":
            messages = [Message("system", system), *messages]
        questions.append(Question(tuple(messages), row.values, row.source))
    if not questions:
        raise DataError(f"{path} holds no question.")
    return questions


def _lines(path: Path) -> Iterator[Row]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        try:
            text = line.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise DataError(f"{path}:{number}: not UTF-8 (byte {error.start + 1} of the line).") from error
        if text:
            yield Row({"question": text}, f"{path}:{number}")


def _messages(row: Row, prompt: str | None) -> list[Message]:
    columns = [name for _, name, _, _ in Formatter().parse(prompt)] if prompt else []
    if prompt and all(name is None or name in row.values for name in columns):
        filled = prompt.format_map({name: _text(row, name) for name in columns if name is not None})
        return [_message("user", filled, row)]
    for column, read in COLUMNS.items():
        if column in row.values:
            return read(row, column)
    wanted = f" or those of the template {prompt!r}" if prompt else ""
    raise DataError(
        f"{row.source}: no question in the keys {listed(row.values)}; expected one of {listed(COLUMNS)}{wanted}."
    )


def _dialogue(row: Row, column: str) -> list[Message]:
    """The turns without an answer at their end, which is what is asked for."""
    turns = row.values[column]
    if not isinstance(turns, list) or not turns:
        raise DataError(f"{row.source}: '{column}' must be a list of turns; got {kind(turns)}.")
    messages = [_turn(turn, f"turn {number}", row) for number, turn in enumerate(turns, start=1)]
    if messages[-1].role == "assistant":
        del messages[-1]
    if not messages or messages[-1].role != "user":
        raise DataError(f"{row.source}: the user must speak last, or last before the answer.")
    return messages


def _turn(turn: object, where: str, row: Row) -> Message:
    """As OpenAI has it, role and content, or as ShareGPT has it, from and value."""
    values = turn if isinstance(turn, dict) else {}
    role, content = values.get("role", values.get("from")), values.get("content", values.get("value"))
    role = SHAREGPT.get(role, role) if isinstance(role, str) else role
    if role not in ROLES:
        raise DataError(
            f"{row.source}: {where} must have a 'role', one of {listed(ROLES)}, and 'content', or a 'from', one of "
            f"{listed(SHAREGPT)}, and 'value'."
        )
    return _message(str(role), content, row)


SHAREGPT = {"human": "user", "gpt": "assistant"}
"""Its names of roles where they are not ours."""


def _plain(row: Row, column: str) -> list[Message]:
    return [_message("user", _text(row, column), row)]


def _prompt(row: Row, column: str) -> list[Message]:
    return _dialogue(row, column) if isinstance(row.values[column], list) else _plain(row, column)


def _instruction(row: Row, column: str) -> list[Message]:
    """As alpaca has it: an instruction and, where there is one, what it is about."""
    about = _text(row, "input") if row.values.get("input") else ""
    return [_message("user", f"{_text(row, column)}\n{about}".strip(), row)]


COLUMNS: dict[str, Callable[[Row, str], list[Message]]] = {
    "messages": _dialogue,
    "conversations": _dialogue,
    "prompt": _prompt,
    "question": _plain,
    "instruction": _instruction,
}
"""Where a question may stand, the first that a row has."""


def _text(row: Row, column: str) -> str:
    value = row.values[column]
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise DataError(f"{row.source}: '{column}' must be text or a number; got {kind(value)}.")
    return str(value)


def _message(role: str, content: object, row: Row) -> Message:
    if not isinstance(content, str) or not content.strip():
        raise DataError(f"{row.source}: the {role}'s message must be text that is not blank.")
    try:
        content.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"{row.source}: the {role}'s message holds half of a surrogate pair, which is no text."
        ) from error
    return Message(role, content)

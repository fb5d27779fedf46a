"""Questions from a file: rows with a question in one of the usual columns, or lines of text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from qpeft.data import Message
from qpeft.data.dialogues import read_question
from qpeft.data.fields import Template, message, text_of
from qpeft.data.formats import Roles, alpaca_question
from qpeft.data.rows import READERS, Row, listed, read_rows, text_lines
from qpeft.errors import DataError

TEXT = ".txt"
COLUMNS = ("messages", "conversations", "prompt", "question", "instruction")
"""Where a question may stand: the first that a row has and that is not null."""


@dataclass(frozen=True)
class Question:
    """A dialogue up to where the assistant is to speak. `row`: the row that it was made from; `source`: its place."""

    messages: tuple[Message, ...]
    row: Mapping[str, object]
    source: str


def read_questions(
    path: Path, *, system: str | None = None, prompt: str | None = None, roles: Roles | None = None
) -> list[Question]:
    """Return all questions of a file, in their order, read as training reads rows of the same columns.

    Args:
        path: .jsonl, .json, .csv or .parquet with columns of `COLUMNS` or those of `prompt`; .txt with one a line.
        system: system message for dialogues that have none of their own.
        prompt: template of the question with column names in braces. Rows that lack its columns are read by `COLUMNS`.
        roles: what role names mean that are not known: {"tool": "user"}.

    Raises: DataError for a file that cannot be read or holds no question, or a row without one; it names the line.
    """
    if path.suffix.lower() not in (TEXT, *READERS):
        raise DataError(f"{path}: files of questions end in {', '.join([*READERS, TEXT])}; got '{path.suffix}'.")
    rows: Iterable[Row]
    if path.suffix.lower() == TEXT:
        try:
            lines = [(number, line.strip()) for number, line in text_lines(path)]
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
        rows = [Row({"question": line}, f"{path}:{number}") for number, line in lines if line]
    else:
        rows = read_rows(str(path), split="train")
    template = Template("prompt", prompt) if prompt else None
    questions = []
    for row in rows:
        if template is not None and all(column in row.values for column in template.columns):
            messages = [message("user", template.fill(row), "prompt", row)]
        else:
            messages = _messages(row, template, roles or {})
        # A row's own system message is what its author meant to be asked with.
        if system and messages[0].role != "system":
            messages = [Message("system", system), *messages]
        questions.append(Question(tuple(messages), row.values, row.source))
    if not questions:
        raise DataError(f"{path} holds no question.")
    return questions


def _messages(row: Row, template: Template | None, roles: Roles) -> list[Message]:
    """Return the question in the first usual column that the row has. Raises: DataError if it has none of them."""
    present = [column for column in COLUMNS if column in row.values]
    if not present:
        wanted = f" or those of the template, {listed(template.columns)}" if template else ""
        raise DataError(
            f"{row.source}: no question in the keys {listed(row.values)}; expected one of {listed(COLUMNS)}{wanted}."
        )
    # Where all are null, the first one's reader says so.
    column = next(filter(row.is_given, present), present[0])
    if column == "instruction":
        return alpaca_question(row)
    # `prompt` is a dialogue to some libraries and a text to others.
    if column in ("messages", "conversations") or (column == "prompt" and isinstance(row.values[column], list)):
        return read_question(row.structure(column), column, row, roles)
    return [message("user", text_of(column, row), f"'{column}'", row)]

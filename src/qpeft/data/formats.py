"""What the columns of a row mean: one row of `FORMATS` per format, from a row to messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from qpeft.data.dialogues import COLUMNS, OPENAI, SHAREGPT, keys_of, read_dialogue, read_turns, turns_of
from qpeft.data.example import Message
from qpeft.data.fields import PairTemplate, message, optional_text, text_of
from qpeft.data.rows import MAX_CHARACTERS, Row, kind, listed
from qpeft.errors import DataError

Roles = Mapping[str, str]
"""Role names of the data and the role each stands for."""

NEAR = 0.6
"""Least likeness of column names to those of a format for it to be called the nearest."""


@dataclass(frozen=True)
class RowFormat:
    """A named way to read rows.

    `name`: as recipes write it. `title`: as people do. `columns`: every row has them. `read` gives the messages of a
    row that has them, or raises DataError. `is_plain`: the one message is text without a chat template.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    read: Callable[[Row, Roles], list[Message]]
    is_plain: bool = False

    def messages(self, row: Row, roles: Roles) -> list[Message]:
        """Return the messages of a row. Raises: DataError for a row that is not of this format."""
        for column in self.columns:
            if column not in row.values:
                raise DataError(
                    f"{row.source}: '{column}' is missing. The row has {listed(row.values)}; "
                    f"expected {listed(self.columns)}, as in the rows before."
                )
        return self.read(row, roles)


def find_format(name: str) -> RowFormat:
    """Return the format of that name. Raises: DataError naming the known ones."""
    for row_format in FORMATS:
        if row_format.name == name:
            return row_format
    raise DataError(f"There is no data format {name!r}; there are {listed(one.name for one in FORMATS)}.")


def template_format(prompt: str | None, response: str | None) -> RowFormat | None:
    """Return the format of two templates with column names in braces; None if neither is given.

    Raises: DataError if only one is given, or for a template without columns or with malformed braces.
    """
    if prompt is None and response is None:
        return None
    if prompt is None or response is None:
        given, missing = ("response", "prompt") if prompt is None else ("prompt", "response")
        raise DataError(f"A {given} template needs a {missing} template beside it.")
    pair = PairTemplate(prompt, response)
    return RowFormat("templates", "templates", (), lambda row, _: pair.messages(row))


def detect_format(rows: Sequence[Row]) -> RowFormat:
    """Return the first of `FORMATS` that has its columns, none null, in all of the first rows, or else in the first.

    Raises: DataError naming the keys found, the keys expected, and the format that comes nearest.
    """
    # Strictest first: a null in a later row, or in the first, must not hide a format that fits otherwise.
    for sample, null in ((rows, False), (rows[:1], False), (rows[:1], True)):
        for row_format in FORMATS:
            if all(_fits(row_format, row, null=null) for row in sample):
                return row_format
    row = rows[0]

    def nearness(row_format: RowFormat) -> float:
        """Return how like the row's column names are to those of a format, in [0, 1]."""
        keys = [str(key)[:MAX_CHARACTERS].lower() for key in row.values]
        is_dialogue = row_format.name in _TURN_KEYS
        likeness = [
            max((SequenceMatcher(None, column, key).ratio() for key in keys), default=0.0)
            for column in (COLUMNS if is_dialogue else row_format.columns)
        ]
        # One column of turns is enough; of columns that belong together each counts.
        return max(likeness) if is_dialogue else sum(likeness) / len(likeness)

    # A misspelt column is the usual cause, so the format that comes nearest is likely meant.
    near = max(FORMATS, key=nearness)
    hint = f" Nearest: {near.title}, with {_wanted(near)}." if nearness(near) >= NEAR else ""
    expected = ", or ".join(map(_wanted, FORMATS[1:]))
    raise DataError(
        f"{row.source}: no known format has the keys {listed(row.values)}.{hint} Expected {expected}; "
        'for other columns give both templates, such as prompt: "{question}" and response: "{reply}".'
    )


def _fits(row_format: RowFormat, row: Row, *, null: bool) -> bool:
    if row_format.name not in _TURN_KEYS:
        return all(column in row.values and (null or row.is_given(column)) for column in row_format.columns)
    turns = turns_of(row)
    if not any(column in row.values for column in COLUMNS) or (turns is None and not null):
        return False
    # The keys of the first turn tell the two apart; where they do not, the usual name of the column does.
    return keys_of(turns, OPENAI if "messages" in row.values else SHAREGPT) is _TURN_KEYS[row_format.name]


def _wanted(row_format: RowFormat) -> str:
    names = COLUMNS if row_format.name in _TURN_KEYS else row_format.columns
    return (" or " if names is COLUMNS else " and ").join(f"'{name}'" for name in names)


def alpaca_question(row: Row) -> list[Message]:
    """Return `instruction`, and `input` on a new line if given, after the [question, answer] pairs of `history`."""
    system, extra = optional_text("system", row), optional_text("input", row)
    messages = [message("system", system, "'system'", row)] if system else []
    # Alpaca keeps earlier turns beside the last question, as pairs.
    history = row.structure("history")
    if history is not None and not isinstance(history, list):
        raise DataError(f"{row.source}: 'history' must be a list of [question, answer] pairs; got {kind(history)}.")
    for number, pair in enumerate(history or [], start=1):
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise DataError(f"{row.source}: pair {number} of 'history' must be a list of two texts; got {kind(pair)}.")
        for role, text in zip(("user", "assistant"), pair, strict=True):
            messages.append(message(role, text, f"pair {number} of 'history'", row))
    question = "\n".join(part for part in (text_of("instruction", row), extra) if part)
    return [*messages, message("user", question, "'instruction'", row)]


def _prompt_completion(row: Row, roles: Roles) -> list[Message]:
    """Return two texts, or two lists of turns of which the first is not trained on."""
    prompt, completion = row.values["prompt"], row.values["completion"]
    if not isinstance(prompt, list) or not isinstance(completion, list):
        return _pair("prompt", "completion")(row, roles)
    # The prompt is context, whoever speaks in it.
    context = [{**turn, "train": False} if isinstance(turn, dict) else turn for turn in prompt]
    return read_turns([*context, *completion], row, OPENAI, roles)


def _pair(user: str, assistant: str) -> Callable[[Row, Roles], list[Message]]:
    return lambda row, _: [_column("user", user, row), _column("assistant", assistant, row)]


def _column(role: str, column: str, row: Row) -> Message:
    return message(role, text_of(column, row), f"'{column}'", row)


FORMATS = (
    RowFormat("messages", "messages", (), lambda row, roles: read_dialogue(row, OPENAI, roles)),
    RowFormat("sharegpt", "ShareGPT", (), lambda row, roles: read_dialogue(row, SHAREGPT, roles)),
    RowFormat(
        "alpaca",
        "alpaca",
        ("instruction", "output"),
        lambda row, _: [*alpaca_question(row), _column("assistant", "output", row)],
    ),
    RowFormat("prompt_completion", "prompt and completion", ("prompt", "completion"), _prompt_completion),
    RowFormat("question_answer", "question and answer", ("question", "answer"), _pair("question", "answer")),
    RowFormat("problem_solution", "problem and solution", ("problem", "solution"), _pair("problem", "solution")),
    RowFormat("text", "plain text", ("text",), lambda row, _: [_column("assistant", "text", row)], is_plain=True),
)
_TURN_KEYS = {"messages": OPENAI, "sharegpt": SHAREGPT}

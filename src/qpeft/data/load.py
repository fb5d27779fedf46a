"""Examples from a file or from a dataset of the Hub."""

from __future__ import annotations

from itertools import islice

from qpeft.data.example import Example, Message
from qpeft.data.formats import detect_format, template_format
from qpeft.data.rows import read_rows
from qpeft.errors import DataError


def load_examples(
    source: str,
    *,
    prompt: str | None = None,
    response: str | None = None,
    system: str | None = None,
    limit: int | None = None,
    split: str = "train",
) -> list[Example]:
    """The dialogues of a data set, in the order of its rows; none is skipped.

    The format is that of the first row: `messages` (a list of role and content), or else `prompt` and `completion`, or
    else `question` and `answer`; every later row must have the same keys. Numbers are turned into text.

    Args:
        source: a .jsonl, .json, .csv or .parquet file, or a dataset of the Hub: "owner/name" or "owner/name:config".
        prompt: template of the user's text with column names in braces, "{question}"; goes with `response`.
        response: template of the assistant's text, "{equation} = {answer}".
        system: system message for the dialogues that have none of their own.
        limit: read only the first `limit` rows.
        split: split of a Hub dataset; a file has none and ignores it.

    Raises: DataError for data that cannot be read as dialogues; it names file, line, keys found and keys expected.
    """
    if limit is not None and limit < 1:
        raise DataError(f"limit must be at least 1; got {limit}.")
    if system is not None and not system.strip():
        raise DataError("The system message is blank. Leave it out to use that of the chat template.")
    row_format = template_format(prompt, response)
    examples = []
    for row in islice(read_rows(source, split=split), limit):
        if row_format is None:
            row_format = detect_format(row)
        messages = row_format.to_messages(row)
        if system is not None and messages[0].role != "system":
            messages = [Message("system", system), *messages]
        examples.append(Example(tuple(messages), row.values, row.source))
    if not examples:
        raise DataError(f"{source} has no rows.")
    return examples

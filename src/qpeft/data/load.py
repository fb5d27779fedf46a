"""Examples from files or datasets of the Hub, one source or several mixed."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from math import inf

from qpeft.data.example import ROLES, Example, Message
from qpeft.data.formats import RowFormat, detect_format, find_format, template_format
from qpeft.data.rows import Row, listed, read_rows
from qpeft.errors import DataError

FIRST_ROWS = 8
"""How many rows are looked at to find the format."""


@dataclass(frozen=True)
class Source:
    """Where examples come from, and how its rows are read.

    Attributes:
        path: a .jsonl, .json, .csv or .parquet file, or a dataset of the Hub: "owner/name" or "owner/name:config".
        format: name of one of `FORMATS`; None takes the one that fits the first rows.
        prompt: template of the user's text with column names in braces, "{question}"; goes with `response`.
        response: template of the assistant's text, "{equation} = {answer}".
        system: system message for the dialogues that have none of their own.
        roles: what role names mean that a format does not know: {"tool": "user"}.
        limit: read only the first `limit` rows.
        split: split of a Hub dataset; a file has none and ignores it.
        weight: how often one pass over a mix reads the source; see `mix`.

    Raises: DataError if the options do not fit together.
    """

    path: str
    format: str | None = None
    prompt: str | None = None
    response: str | None = None
    system: str | None = None
    roles: Mapping[str, str] = field(default_factory=dict)
    limit: int | None = None
    split: str = "train"
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise DataError(f"limit must be at least 1; got {self.limit}.")
        if self.system is not None and not self.system.strip():
            raise DataError("The system message is blank. Leave it out to use that of the chat template.")
        # Written so that NaN fails as well.
        if not 0 < self.weight < inf:
            raise DataError(f"{self.path}: the weight of a source must be a number above 0; got {self.weight}.")
        if wrong := [role for role in self.roles.values() if role not in ROLES]:
            raise DataError(f"roles stand for {listed(ROLES)}; got {listed(wrong)}.")
        if self.format is not None:
            find_format(self.format)
        if self.format is not None and template_format(self.prompt, self.response) is not None:
            raise DataError(f"{self.path}: templates say how rows are read, and so does format; give one of the two.")


class Reader:
    """The examples of a source, in the order of its rows; none is skipped. Each pass reads the source anew.

    Attributes:
        source: the source.
        row_format: how its rows are read.

    Raises: DataError for data that cannot be read as examples; it names file, line, keys found and keys expected.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        rows = self._rows()
        first = list(islice(rows, FIRST_ROWS))
        if not first:
            raise DataError(f"{source.path} has no rows.")
        given = find_format(source.format) if source.format else template_format(source.prompt, source.response)
        self.row_format: RowFormat = given or detect_format(first)
        # The first pass goes on with what was opened to look at the first rows, so that these are read once.
        self._opened: Iterator[Row] | None = chain(first, rows)

    def __iter__(self) -> Iterator[Example]:
        source, row_format = self.source, self.row_format
        # What was opened before serves the first pass alone; a later one reads anew.
        rows, self._opened = self._opened or self._rows(), None
        for row in rows:
            messages = row_format.messages(row, source.roles)
            if source.system is not None and not row_format.is_plain and messages[0].role != "system":
                messages = [Message("system", source.system), *messages]
            yield Example(tuple(messages), row.values, row.source, row_format.is_plain)

    def _rows(self) -> Iterator[Row]:
        return islice(read_rows(self.source.path, split=self.source.split), self.source.limit)


def load_examples(
    source: str,
    *,
    format: str | None = None,  # noqa: A002  (as recipes call it)
    prompt: str | None = None,
    response: str | None = None,
    system: str | None = None,
    roles: Mapping[str, str] | None = None,
    limit: int | None = None,
    split: str = "train",
) -> list[Example]:
    """Return all examples of a source.

    Args:
        source: the path of a `Source`.
        format, prompt, response, system, roles, limit, split: its other options, by the same names.

    Raises: DataError as `Reader` does.
    """
    return list(Reader(Source(source, format, prompt, response, system, roles or {}, limit, split)))


def mix(sources: Sequence[tuple[Iterable[Example], float]], *, seed: int) -> Iterator[Example]:
    """Yield the examples of all sources, each source in its own order, spread at random over the whole stream.

    Args:
        sources: examples that can be read again, and how often they are read: 1 gives each once, 2 twice, 0.5 a half of
            them, chosen by their text. Several sources are read once more, to be counted.
        seed: of the order; one source keeps its own whatever the seed.
    """

    def repeat(examples: Iterable[Example], times: float) -> Iterator[Example]:
        for _ in range(int(times)):
            yield from examples
        if times % 1:
            yield from (one for one in examples if _is_among(one, times % 1))

    streams = [repeat(examples, weight) for examples, weight in sources]
    if len(sources) == 1:
        yield from streams[0]
        return
    # Counted in a pass before, since the urn must know what is in it.
    generator = random.Random(seed)
    left = [sum(int(times) + _is_among(one, times % 1) for one in examples) for examples, times in sources]
    while any(left):
        # Drawn as from an urn: a small source would else be used up long before a large one.
        (chosen,) = generator.choices(range(len(streams)), left)
        left[chosen] -= 1
        yield next(streams[chosen])


def _is_among(one: Example, share: float) -> bool:
    # Not the first digits, by which examples are held out: what is left to train on is the upper part of those.
    return int(one.digest[-8:], 16) < share * 16**8

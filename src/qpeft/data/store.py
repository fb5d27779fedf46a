"""Encoded examples on disk, for sets that do not fit in memory: Arrow files that are memory-mapped when read.

A folder holds shards of `SHARD` examples each. Beside each stands a note with the digest of the examples it was made
of, written last: a shard without one, or with another digest, is made anew, all others are kept. So what was
interrupted goes on where it stopped, and rows that are added to a file cost only their own work.
"""

from __future__ import annotations

import hashlib
import json
import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, overload

from qpeft.data.encode import Encoded, EncodingSummary, summarize
from qpeft.data.example import Example
from qpeft.data.split import identity, split_digest
from qpeft.errors import DataError
from qpeft.runs.files import disk_errors, write_atomically

if TYPE_CHECKING:
    from datasets import Dataset


class AbstractLazyExamples(Sequence[Encoded]):
    """Indexed as a list is; a part of it is a list."""

    @abstractmethod
    def example(self, place: int) -> Encoded:
        """Return the example at one place. Raises: IndexError if there is none."""

    @overload
    def __getitem__(self, index: int) -> Encoded: ...

    @overload
    def __getitem__(self, index: slice) -> list[Encoded]: ...

    def __getitem__(self, index: int | slice) -> Encoded | list[Encoded]:
        if isinstance(index, slice):
            return [self.example(place) for place in range(*index.indices(len(self)))]
        return self.example(index)


SHARD = 4000
"""Examples of a shard: all that is held in memory at once."""

FORMAT = 2
"""Goes up when the files look otherwise, so that older ones are not read."""

COLUMNS = ("input_ids", "labels")


class StoredExamples(AbstractLazyExamples):
    """Encoded examples in Arrow files, read as they are asked for.

    Attributes:
        dataset: columns as fields of `Encoded`, memory-mapped.
        summary: of all of them.
        digest: of the examples that they were made of.
    """

    def __init__(self, dataset: Dataset, summary: EncodingSummary, digest: str) -> None:
        self.dataset, self.summary, self.digest = dataset, summary, digest

    def __len__(self) -> int:
        return len(self.dataset)

    def example(self, place: int) -> Encoded:
        """One example, read from its file."""
        values = self.dataset[place]
        return Encoded(**{**values, "notes": tuple(values["notes"])})


def store_examples(
    examples: Iterable[Example], encode: Callable[[Sequence[Example]], tuple[list[Encoded], int]], folder: Path
) -> StoredExamples:
    """Encode examples into shards in a folder, and keep the shards that are there already.

    Args:
        examples: in the order in which they are to be stored.
        encode: returns some of them encoded, and how many of those are left out as too long.
        folder: for these examples encoded in this way alone; made if need be. Processes take turns.

    Raises: DataError if there are no examples or all are left out; OutputError if the disk refuses.
    """
    import pyarrow  # noqa: PLC0415
    from datasets import Dataset, concatenate_datasets  # noqa: PLC0415  (takes a second to import)
    from filelock import FileLock  # noqa: PLC0415

    tokens, number = pyarrow.list_(pyarrow.int32()), pyarrow.int32()
    notes, source = pyarrow.list_(pyarrow.string()), pyarrow.string()
    fields = {"input_ids": tokens, "labels": tokens, "cut": number, "notes": notes, "source": source, "lost": number}
    schema = pyarrow.schema(fields)
    rest, whole, summary, shards = iter(examples), hashlib.sha256(), EncodingSummary(), []
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
    with lock:
        for shard in count():
            if not (part := list(islice(rest, SHARD))):
                break
            path = folder / f"{shard:05d}.arrow"
            note = path.with_suffix(".json")
            digest = split_digest(part)
            for example in part:
                whole.update(identity(example))
            part_summary = None
            # A shard without a readable note, or with that of other examples, is made anew.
            with suppress(OSError, ValueError, KeyError, TypeError):
                stored = json.loads(note.read_text(encoding="utf-8"))
                # The size tells a shard that a full disk has cut short.
                if (stored["digest"], stored["bytes"]) == (digest, path.stat().st_size):
                    part_summary = EncodingSummary(**stored["summary"])
            if part_summary is None:
                encoded, left_out = encode(part)
                part_summary, temporary = summarize(encoded, left_out=left_out), path.with_suffix(".partial")
                table = pyarrow.table({name: [getattr(one, name) for one in encoded] for name in schema.names}, schema)
                with disk_errors(folder):
                    # First of all the note goes: it must never stand beside a shard that it does not describe.
                    note.unlink(missing_ok=True)
                    with pyarrow.OSFile(str(temporary), "wb") as file, pyarrow.ipc.new_stream(file, schema) as writer:
                        writer.write_table(table)
                    os.replace(temporary, path)
                values = {"digest": digest, "bytes": path.stat().st_size, "summary": asdict(part_summary)}
                write_atomically(note, json.dumps(values))
                # Else they would stay while the next shard is encoded, and memory would hold two.
                del encoded, table
            summary += part_summary
            if part_summary.examples:
                shards.append(Dataset.from_file(str(path)))
    if not shards:
        raise DataError(
            f"No token is trained on: there are no examples, or each of {summary.left_out:,} is too long to be kept. "
            "Raise data.max_length, or cut them off with data.drop_longer: false."
        )
    return StoredExamples(concatenate_datasets(shards), summary, whole.hexdigest())


def to_dataset(encoded: Sequence[Encoded]) -> Dataset:
    """Return columns `input_ids` and `labels`, which TRL's SFTTrainer takes with `skip_prepare_dataset`."""
    from datasets import Dataset  # noqa: PLC0415  (takes a second to import)

    if isinstance(encoded, StoredExamples):
        return encoded.dataset.select_columns(list(COLUMNS))
    return Dataset.from_dict({name: [getattr(one, name) for one in encoded] for name in COLUMNS})


def lengths(encoded: Sequence[Encoded], *, before_cut: bool = False) -> list[int]:
    """Return the number of tokens of each example, as it is or `before_cut`."""
    if not isinstance(encoded, StoredExamples):
        return [len(one.input_ids) + one.cut * before_cut for one in encoded]
    import pyarrow.compute  # noqa: PLC0415

    # Counted on the Arrow columns: reading every example would bring the whole set into memory.
    found: list[int] = pyarrow.compute.list_value_length(encoded.dataset.data["input_ids"]).to_pylist()
    return [length + cut for length, cut in zip(found, encoded.dataset["cut"], strict=True)] if before_cut else found

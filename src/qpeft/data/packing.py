"""Batches: rows padded to one length, or several short examples packed into each row."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from qpeft.data.encode import IGNORED, Encoded
from qpeft.data.store import AbstractLazyExamples, lengths


def pad_batch(rows: Sequence[Encoded], *, pad_token_id: int = 0, packed: bool = False) -> dict[str, Tensor]:
    """Return what a model is called with: `input_ids`, `labels` and one more, (rows, longest), padded on the right.

    Args:
        rows: examples, or packed rows of several.
        pad_token_id: what stands after the end of a row; a packed row has zeros there.
        packed: whether rows hold several examples. Then `position_ids` begin at 0 in every example and there is no
            `attention_mask`: from positions alone, and only without a mask, transformers lets each token attend to its
            own example.
    """
    # Padded to the longest of these rows and no further: every column costs time.
    shape = (len(rows), max(len(row.input_ids) for row in rows))
    ids = torch.full(shape, 0 if packed else pad_token_id)
    # In packed rows padding is at position 0 throughout, so that each such token is an example of its own.
    second, labels = torch.zeros(shape, dtype=torch.long), torch.full(shape, IGNORED)
    for number, row in enumerate(rows):
        end = len(row.input_ids)
        ids[number, :end] = torch.tensor(row.input_ids)
        labels[number, :end] = torch.tensor(row.labels)
        second[number, :end] = torch.cat([torch.arange(length) for length in row.lengths]) if packed else 1
    return {"input_ids": ids, "position_ids" if packed else "attention_mask": second, "labels": labels}


class PackedExamples(AbstractLazyExamples):
    """Rows of up to `capacity` tokens, each made of whole examples, whose `lengths` it knows.

    Args:
        encoded: examples of at most `capacity` tokens.
        capacity: tokens of a row.
    """

    def __init__(self, encoded: Sequence[Encoded], capacity: int) -> None:
        self._encoded, self._capacity = encoded, capacity
        sizes = lengths(encoded)
        self._tokens, self._rows = sum(sizes), pack(sizes, capacity)

    @property
    def filled(self) -> float:
        """Share of the rows' tokens that is used, in (0, 1]."""
        return self._tokens / (len(self) * self._capacity)

    def __len__(self) -> int:
        return len(self._rows)

    def example(self, place: int) -> Encoded:
        """Return one row."""
        parts = [self._encoded[part] for part in self._rows[place]]
        return Encoded(
            input_ids=[token for part in parts for token in part.input_ids],
            # Nothing before its first token predicts it.
            labels=[label for part in parts for label in (IGNORED, *part.labels[1:])],
            cut=sum(part.cut for part in parts),
            notes=(),
            source=", ".join(part.source for part in parts),
            lengths=tuple(len(part.input_ids) for part in parts),
        )


def pack(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """Return which examples share a row: the longest first, each where the least room that is enough is left.

    Args:
        sizes: tokens of each example, none above `capacity`.
        capacity: tokens of a row.

    Returns:
        Places of examples, per row; each place once.
    """
    # Best fit, decreasing. Rows are found by the room that they have left, so this takes n log n and not n squared.
    rows: list[list[int]] = []
    with_room: dict[int, list[list[int]]] = defaultdict(list)
    rooms: list[int] = []  # that some row has left, ascending
    for place in sorted(range(len(sizes)), key=lambda place: -sizes[place]):
        at = bisect_left(rooms, sizes[place])
        if at == len(rooms):
            room, row = capacity, list[int]()
            rows.append(row)
        else:
            room = rooms[at]
            row = with_room[room].pop()
            if not with_room[room]:
                del rooms[at]
        row.append(place)
        left = room - sizes[place]
        if not with_room[left]:
            insort(rooms, left)
        with_room[left].append(row)
    return rows

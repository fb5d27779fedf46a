"""Examples to judge by, taken from a data set that comes without any."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Sequence

from qpeft.data.example import Example
from qpeft.errors import DataError

NUM_DIGESTS = 2**256
EVERYTHING = "~"
"""Larger than all digests."""


def hold_out(examples: Sequence[Example], amount: float) -> tuple[list[Example], list[Example]]:
    """Return training and held-out examples, each in the order of the rows; see `hold_out_line`.

    Raises: DataError if nothing would be left to train on, or nothing would be held out.
    """
    line = hold_out_line(examples, amount)
    training = [example for example in examples if example.digest > line]
    held_out = [example for example in examples if example.digest <= line]
    if not training or not held_out:
        fault = "is no number of examples to hold out" if training else "cannot be held out with any left to train on"
        raise DataError(f"Of {len(examples)} examples, {amount} {fault}.")
    return training, held_out


def hold_out_line(examples: Iterable[Example], amount: float) -> str:
    """Return the digest up to which examples are held out; those with a larger one are trained on.

    Whole dialogues are held out, chosen by the SHA-256 of their text, so the choice depends on nothing but the data,
    not on seed or order, and equal dialogues lie on the same side.

    Args:
        examples: looked at once, and only for a count.
        amount: below 1, about this share is held out: the line is fixed, so rows that are added later move no others to
            the other side. From 1 on a count: that many examples of smallest digest, and all copies of theirs.
    """
    if amount < 1:
        # Digests are spread evenly over all numbers of 256 bits, so a share of them lies below a fixed line.
        return format(int(amount * NUM_DIGESTS), "064x")
    # Digests are unlike one another, so the smallest ones are a draw that anybody can repeat.
    smallest = heapq.nsmallest(int(amount), (example.digest for example in examples))
    return smallest[-1] if len(smallest) == amount else EVERYTHING


def split_by_opening(
    examples: Iterable[Example], share: float, *, column: str | None = None
) -> tuple[list[Example], list[Example]]:
    """Return training and test examples, each in the order of the rows; those that ask the same lie on one side.

    What decides is the SHA-256 of what is asked: rows that are added later move no others to the other side.

    Args:
        examples: all of them.
        share: about this share of what is asked goes to the test, between 0 and 1.
        column: of their rows, in which those that belong together are equal; None for the first user's text.

    Raises: DataError if a row lacks the column, or one of the sides would be empty.
    """
    sides: tuple[list[Example], list[Example]] = [], []
    for example in examples:
        if column is not None and column not in example.row:
            raise DataError(f"{example.source} has no column {column!r}; it has {', '.join(map(repr, example.row))}.")
        asked = example.opening if column is None else repr(example.row[column])
        # Equal questions have equal digests, so all that ask the same lie together.
        digest = int(hashlib.sha256(asked.encode()).hexdigest(), 16)
        sides[digest < share * NUM_DIGESTS].append(example)
    if not all(sides):
        missing = "test" if sides[0] else "training"
        raise DataError(f"Of {len(sides[0] or sides[1])} examples a share of {share:g} leaves no {missing} examples.")
    return sides


def split_digest(examples: Iterable[Example]) -> str:
    """Return a name for a split: the SHA-256 over its examples in order and what of each is trained on, hexadecimal."""
    total = hashlib.sha256()
    for example in examples:
        total.update(identity(example))
    return total.hexdigest()


def identity(example: Example) -> bytes:
    """Return bytes that two examples share exactly if the same is learned from both."""
    # Not where it stands: the same text in another file is learned alike.
    trained = bytes(message.trained for message in example.messages)
    return bytes.fromhex(example.digest) + trained + bytes([example.is_plain])

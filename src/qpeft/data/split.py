"""Held-out examples taken from a data set that comes without any."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from qpeft.data.example import Example
from qpeft.errors import DataError


def hold_out(examples: Sequence[Example], count: int) -> tuple[list[Example], list[Example]]:
    """Training and held-out examples, each in the order of the rows.

    Whole dialogues are held out: the `count` whose text has the smallest SHA-256. So the choice depends on nothing but
    the data, not on seed or order; equal dialogues lie on the same side, and `count` grows to hold all copies of one.

    Raises: DataError if nothing would be left to train on.
    """
    hashes = [_hash(example) for example in examples]
    limit = sorted(hashes)[count - 1] if count <= len(hashes) else None
    if limit is None or all(value <= limit for value in hashes):
        raise DataError(f"Of {len(examples)} examples, {count} cannot be held out with any left to train on.")
    training = [example for example, value in zip(examples, hashes, strict=True) if value > limit]
    held_out = [example for example, value in zip(examples, hashes, strict=True) if value <= limit]
    return training, held_out


def _hash(example: Example) -> str:
    text = "\x1e".join(f"{message.role}\x1f{message.content}" for message in example.messages)
    return hashlib.sha256(text.encode()).hexdigest()

"""Distributions in and out of the journal, bit for bit, with a checksum: a damaged one is an error, never a value."""

from __future__ import annotations

import json
import sqlite3
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qpeft.devices.journal.database import damaged
from qpeft.devices.journal.records import Batch
from qpeft.devices.protocol import Distribution
from qpeft.errors import JournalError


def store(connection: sqlite3.Connection, batch: Batch, distributions: Sequence[Distribution]) -> None:
    """Write what came back for a batch, within the caller's transaction."""
    assert len(distributions) == batch.num_circuits, "results are checked before they are stored"
    # repr of a float, which json writes, is read back as the same float.
    plain = [{bits: float(share) for bits, share in distribution.items()} for distribution in distributions]
    texts = [json.dumps(distribution, separators=(",", ":"), allow_nan=False) for distribution in plain]
    connection.executemany(
        "UPDATE circuits SET distribution = ?, checksum = ? WHERE batch = ? AND position = ?",
        [(text, zlib.crc32(text.encode()), batch.number, position) for position, text in enumerate(texts)],
    )


def store_rejected(
    connection: sqlite3.Connection, batch: Batch, reason: str, replies: Sequence[Sequence[Mapping[str, float]]]
) -> None:
    """Write what came for a batch and is not used, within the caller's transaction; nothing if it is there."""
    text = json.dumps([[dict(one) for one in reply] for reply in replies], separators=(",", ":"))
    connection.execute(
        "INSERT OR IGNORE INTO rejected VALUES (?, ?, ?, ?, ?, ?)",
        (batch.number, zlib.crc32(text.encode()), time.time(), batch.job_id, reason, text),
    )


def of_call(connection: sqlite3.Connection, path: Path, call_id: int) -> list[Distribution]:
    """Results of a call, in its order. Raises: JournalError if one is missing or damaged."""
    query = """SELECT number, distribution, checksum FROM entries JOIN circuits USING (batch, position)
        WHERE call_id = ? ORDER BY number"""
    rows = connection.execute(query, (call_id,)).fetchall()
    known: dict[tuple[str, int], Distribution] = {}
    for number, text, checksum in rows:
        if text is None:
            raise JournalError(f"The journal {path} has no result yet for circuit {number} of this call.")
        if (text, checksum) not in known:
            known[text, checksum] = read(path, text, checksum)
    # A copy each: whoever changes one of two equal results must not change the other.
    return [dict(known[text, checksum]) for _, text, checksum in rows]


def read(path: Path, text: str, checksum: int) -> Any:
    """A stored distribution, or list of replies. Raises: JournalError if it is not what was written."""
    if zlib.crc32(text.encode()) != checksum:
        raise damaged(path, "a result differs from its checksum")
    return json.loads(text)

"""Calls and their plans: which circuits go into which batch, and which result answers which circuit."""

from __future__ import annotations

import sqlite3
import time
from itertools import islice
from typing import TypeAlias

from qpeft.devices.calls import CallKey
from qpeft.devices.journal.hashing import hash_batch
from qpeft.devices.journal.records import BatchState, Request, describe
from qpeft.errors import JournalError

Place: TypeAlias = tuple[int, int]
"""Batch and position in it."""


def find_call(connection: sqlite3.Connection, run: str, key: CallKey, request: Request) -> int | None:
    """Id of a call if the journal has it. Raises: JournalError if it was made with another request."""
    query = "SELECT id, hash FROM calls WHERE run = ? AND step = ? AND module = ? AND call = ? AND part = ?"
    row = connection.execute(query, (run, *_columns(key))).fetchone()
    if row is None:
        return None
    call_id, stored = row
    if stored != request.hash:
        raise JournalError(
            f"Run {run} made the call ({describe(key)}) before with other circuits, shots, device or options, so its "
            "results do not answer this one. Take the same recipe and seed, on the same kind of machine with as many "
            "threads, which change the last bits of angles; or start a new run. Nothing was sent."
        )
    return int(call_id)


def make_call(
    connection: sqlite3.Connection, run: str, key: CallKey, request: Request, size: int, calibration: str | None
) -> int:
    """Write a call with its batches and entries, within the caller's transaction, and return its id."""
    call = connection.execute(
        "INSERT INTO calls (run, step, module, call, part, hash) VALUES (?, ?, ?, ?, ?, ?)",
        (run, *_columns(key), request.hash),
    ).lastrowid
    assert call is not None
    places = _known_places(connection, request, calibration) if calibration is not None else {}
    missing = iter([one for one in request.circuits if one not in places])
    while batch := list(islice(missing, size)):
        number = _make_batch(connection, call, request, batch, calibration)
        places |= {one: (number, position) for position, one in enumerate(batch)}
    entries = [(call, index, *places[one]) for index, one in enumerate(request.hashes)]
    connection.executemany("INSERT INTO entries VALUES (?, ?, ?, ?)", entries)
    return call


def _columns(key: CallKey) -> tuple[int, str, int, str]:
    return key.step, key.module, key.call, key.part


def _make_batch(
    connection: sqlite3.Connection, call: int, request: Request, hashes: list[str], calibration: str | None
) -> int:
    content = hash_batch(hashes, request.shots, request.device, request.options)
    values = (call, content, request.device, request.options, calibration, request.shots, len(hashes))
    number = connection.execute(
        """INSERT INTO batches (call_id, hash, device, options, calibration, shots, num_circuits, state, changed_at)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        (*values, BatchState.PLANNED.value, time.time()),
    ).lastrowid
    assert number is not None
    rows = [(number, position, one, request.circuits[one].num_qubits) for position, one in enumerate(hashes)]
    connection.executemany("INSERT INTO circuits (batch, position, hash, num_qubits) VALUES (?, ?, ?, ?)", rows)
    return number


def _known_places(connection: sqlite3.Connection, request: Request, calibration: str) -> dict[str, Place]:
    """Where results of the request's circuits stand, from any run, under the same calibration; the newest."""
    query = """SELECT batch, position FROM circuits JOIN batches ON number = batch WHERE circuits.hash = ?
        AND distribution IS NOT NULL AND device = ? AND options = ? AND shots IS ? AND calibration = ?
        ORDER BY batch DESC LIMIT 1"""
    places = {}
    for one in request.circuits:
        row = connection.execute(query, (one, request.device, request.options, request.shots, calibration)).fetchone()
        if row is not None:
            places[one] = row
    return places

"""Calls and their plans: which circuits go into which batch, and which result answers which circuit."""

from __future__ import annotations

import sqlite3
import time
from itertools import islice

from qpeft.devices import markers
from qpeft.devices.journal.records import BatchState, Request, hash_batch, hash_circuit
from qpeft.devices.protocol import CallKey
from qpeft.errors import JournalError


def find_call(connection: sqlite3.Connection, run: str, key: CallKey, request: Request) -> int | None:
    """Return the id of a call if the journal has it.

    Args:
        connection: to the journal.
        run: id of the run.
        key: of the call.
        request: what it asks for.

    Raises: JournalError if it was made with another request.
    """
    query = "SELECT id, hash FROM calls WHERE run = ? AND step = ? AND module = ? AND call = ? AND part = ?"
    row = connection.execute(query, (run, key.step, key.module, key.call, key.part)).fetchone()
    if row is None:
        return None
    call_id, stored = row
    if stored != request.hash:
        raise JournalError(
            f"Run {run} made the call ({key}) before with other circuits, shots, device or options, so its "
            "results do not answer this one. Take the same recipe and seed, on the same kind of machine with as many "
            "threads, which change the last bits of angles; or start a new run. Nothing was sent."
        )
    return int(call_id)


def make_call(
    connection: sqlite3.Connection,
    run: str,
    key: CallKey,
    request: Request,
    size: int,
    calibration: str | None,
    *,
    marked: bool,
) -> int:
    """Write a call with its batches and entries, within the caller's transaction, and return its id.

    Args:
        connection: in a transaction.
        run, key, request: as for `find_call`.
        size: of a batch at most, without markers.
        calibration: under which results of other calls may answer; None for none of them.
        marked: whether batches get markers, as their sizes allow.
    """
    call = connection.execute(
        "INSERT INTO calls (run, step, module, call, part, hash) VALUES (?, ?, ?, ?, ?, ?)",
        (run, key.step, key.module, key.call, key.part, request.hash),
    ).lastrowid
    assert call is not None
    # Hash of a circuit to batch and position of its result.
    places: dict[str, tuple[int, int]] = {}
    if calibration is not None:
        # The newest result of any run counts, as the chip may have drifted within one calibration.
        query = """SELECT batch, position FROM circuits JOIN batches ON number = batch WHERE circuits.hash = ?
            AND distribution IS NOT NULL AND device = ? AND options = ? AND shots IS ? AND calibration = ?
            ORDER BY batch DESC LIMIT 1"""
        for one in request.circuits:
            values = (one, request.device, request.options, request.shots, calibration)
            if (row := connection.execute(query, values).fetchone()) is not None:
                places[one] = row
    # In the order of the call, so that a resumed run plans the same batches.
    missing = iter([one for one in request.circuits if one not in places])
    while batch := list(islice(missing, size)):
        number, positions = _make_batch(connection, call, request, batch, calibration, marked=marked)
        places |= {one: (number, position) for one, position in zip(batch, positions, strict=True)}
    entries = [(call, index, *places[one]) for index, one in enumerate(request.hashes)]
    connection.executemany("INSERT INTO entries VALUES (?, ?, ?, ?)", entries)
    return call


def _make_batch(
    connection: sqlite3.Connection,
    call: int,
    request: Request,
    hashes: list[str],
    calibration: str | None,
    *,
    marked: bool,
) -> tuple[int, list[int]]:
    """Write a batch; return its number, and at which position of it each of these circuits stands."""
    circuits, known = [request.circuits[one] for one in hashes], {}
    if marked:
        # Drawn from what is asked alone: whoever plans the same again, in this run or another or at another address of
        # the cloud, which is an option, sends the very same job.
        identity = hash_batch(hashes, request.shots, request.device, options="")
        known = markers.draw_markers(identity, len(hashes), max(circuit.num_qubits for circuit in circuits))
    sent = markers.with_markers(circuits, known)
    all_hashes = [hash_circuit(circuit) for circuit in sent] if known else hashes
    content = hash_batch(all_hashes, request.shots, request.device, request.options)
    values = (call, content, request.device, request.options, calibration, request.shots, len(sent))
    number = connection.execute(
        """INSERT INTO batches (call_id, hash, device, options, calibration, shots, num_circuits, state, changed_at)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        (*values, BatchState.PLANNED.value, time.time()),
    ).lastrowid
    assert number is not None
    connection.executemany(
        "INSERT INTO circuits (batch, position, hash, num_qubits, marker) VALUES (?, ?, ?, ?, ?)",
        [
            (number, position, one, circuit.num_qubits, known.get(position))
            for position, (one, circuit) in enumerate(zip(all_hashes, sent, strict=True))
        ],
    )
    return number, [position for position in range(len(sent)) if position not in known]

"""Tables over the whole journal: costs per run and device, the history of a batch, every result as a row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from qpeft.devices.budget import Cost
from qpeft.devices.journal.database import read_checked
from qpeft.devices.journal.journal import Journal
from qpeft.devices.journal.records import Batch


class Spending(NamedTuple):
    """Costs of one run on one device."""

    run: str
    device: str
    cost: Cost


class Change(NamedTuple):
    """One line of a batch's history; `at` is seconds since 1970."""

    at: float
    state: str
    job_id: str | None
    message: str


def spending(journal: Journal) -> list[Spending]:
    """Return what was spent by run and device, in the order of their names."""
    with journal.database.reading() as connection:
        rows = connection.execute("SELECT run, device, circuits, shots, seconds FROM spent ORDER BY run, device")
        return [Spending(run, device, Cost(*cost)) for run, device, *cost in rows]


def history(journal: Journal, batch: Batch) -> list[Change]:
    """Return what happened to a batch, oldest first."""
    with journal.database.reading() as connection:
        query = "SELECT at, state, job_id, message FROM history WHERE batch = ? ORDER BY rowid"
        return [Change(*row) for row in connection.execute(query, (batch.number,))]


def rejected(journal: Journal, *, run: str | None = None, batch: Batch | None = None) -> Iterator[dict[str, Any]]:
    """Return what came back and is not used, since its order cannot be trusted; oldest first.

    Args:
        journal: to read.
        run: of which alone; None for all.
        batch: of which alone; None for all.

    Raises: JournalError if one is damaged.
    """
    query = """SELECT run, batch, rejected.at AS at, rejected.job_id AS job_id, reason, replies, rejected.checksum
        FROM rejected JOIN batches ON batches.number = batch JOIN calls ON calls.id = call_id
        WHERE (?1 IS NULL OR run = ?1) AND (?2 IS NULL OR batch = ?2) ORDER BY rejected.at"""
    with journal.database.reading() as connection:
        for *facts, text, checksum in connection.execute(query, (run, None if batch is None else batch.number)):
            replies = read_checked(journal.path, text, checksum)
            yield {**dict(zip(("run", "batch", "at", "job_id", "reason"), facts, strict=True)), "replies": replies}


def rows(journal: Journal, *, run: str | None = None) -> Iterator[dict[str, Any]]:
    """Return one row per circuit of every call, in order; `distribution` is None where no result is here.

    Raises: JournalError if a result is damaged.
    """
    query = """SELECT run, step, module, call, part, entries.number AS number, circuits.hash AS circuit,
        entries.batch AS batch, device, options, calibration, shots, state, job_id, distribution, checksum
        FROM entries JOIN calls ON calls.id = entries.call_id JOIN circuits USING (batch, position)
        JOIN batches ON batches.number = entries.batch WHERE ? IS NULL OR run = ?
        ORDER BY entries.call_id, entries.number"""
    with journal.database.reading() as connection:
        cursor = connection.execute(query, (run, run))
        names = [column[0] for column in cursor.description]
        # One by one: an export of a whole training may not fit into memory.
        for values in cursor:
            row = dict(zip(names, values, strict=True))
            text, checksum = row.pop("distribution"), row.pop("checksum")
            yield row | {"distribution": None if text is None else read_checked(journal.path, text, checksum)}

"""The journal: what is about to be sent, what was sent, what came back; each is written before the next happens."""

from __future__ import annotations

import json
import sqlite3
import time
import zlib
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import fields
from pathlib import Path

from qpeft.devices.budget import Budget, Cost
from qpeft.devices.journal.database import Database, read_checked
from qpeft.devices.journal.owner import is_sending, this_process
from qpeft.devices.journal.records import Batch, BatchState, Request, find_call, make_call
from qpeft.devices.protocol import CallKey, Distribution
from qpeft.errors import JournalError

UNSETTLED = frozenset(BatchState) - {BatchState.FINISHED, BatchState.PLANNED}
COLUMNS = tuple(field.name for field in fields(Batch) if field.name not in ("key", "state"))
# Circuits, calls and batches all have a hash; the batch's own is meant.
QUERY = f"""SELECT step, module, call, part, state, {", ".join(COLUMNS).replace("hash", "batches.hash")}
    FROM batches JOIN calls ON calls.id = call_id"""


class Journal:
    """Batches, results and costs of all runs that share one file; several processes may use it at once.

    Every method that changes something is one transaction: done when it returns, whatever then happens to the process.

    Args:
        path: of the file.
        create: make the file if it is missing.

    Raises: JournalError, here and in every method, if the file is missing, damaged, of a newer version, not ours,
        locked for a minute, or its disk is full.
    """

    def __init__(self, path: Path, *, create: bool = True) -> None:
        self.database = Database(path, create=create)

    @property
    def path(self) -> Path:
        return self.database.path

    def close(self) -> None:
        """Let the file go."""
        self.database.close()

    def plan(
        self,
        run: str,
        key: CallKey,
        request: Request,
        size: int,
        calibration: str | None,
        *,
        marked: bool = False,
    ) -> int:
        """Return the id of the call, planned now if need be: each different circuit once, in batches.

        Args:
            run: id of the run that pays.
            key: of the call.
            request: what it asks for.
            size: most circuits of a batch, markers not counted.
            calibration: results that the journal has for the same circuit, device, options, shots and calibration take
                the place of circuits to be sent; None for none of them.
            marked: whether batches also hold circuits of known outcome (`devices.markers`).

        Raises: JournalError if the key came with another request before.
        """
        # A plan that a power cut takes is only made again.
        with self.database.transaction(outlives_power_cut=False) as connection:
            # Looked for again within the transaction: another process may have planned it since `find`.
            known = find_call(connection, run, key, request)
            if known is not None:
                return known
            return make_call(connection, run, key, request, size, calibration, marked=marked)

    def find(self, run: str, key: CallKey, request: Request) -> int | None:
        """Return the id of the call if it was planned before.

        Args:
            run, key, request: as for `plan`.

        Raises: JournalError if it was planned with another request.
        """
        with self.database.reading() as connection:
            return find_call(connection, run, key, request)

    def results(self, call_id: int) -> list[Distribution]:
        """Return one distribution per circuit of the call. Raises: JournalError if one is missing or damaged."""
        with self.database.reading() as connection:
            query = """SELECT number, distribution, checksum FROM entries JOIN circuits USING (batch, position)
                WHERE call_id = ? ORDER BY number"""
            rows = connection.execute(query, (call_id,)).fetchall()
        # Equal circuits of a call have one result, which is parsed once.
        known: dict[tuple[str, int], Distribution] = {}
        for number, text, checksum in rows:
            if text is None:
                raise JournalError(f"The journal {self.path} has no result yet for circuit {number} of this call.")
            if (text, checksum) not in known:
                known[text, checksum] = read_checked(self.path, text, checksum)
        # A copy each: whoever changes one of two equal results must not change the other.
        return [dict(known[text, checksum]) for _, text, checksum in rows]

    def unfinished(self, call_id: int) -> list[Batch]:
        """Return batches of a call whose results are not here, in the order in which they are sent."""
        return self._batches("WHERE call_id = ? AND state != 'finished' ORDER BY number", (call_id,))

    def batches(self, *, run: str | None = None, state: BatchState | None = None) -> list[Batch]:
        """Return all batches, oldest first, of one run and in one state if asked for."""
        condition = "WHERE (? IS NULL OR run = ?) AND (? IS NULL OR state = ?) ORDER BY number"
        value = None if state is None else state.value
        return self._batches(condition, (run, run, value, value))

    def batch(self, number: int) -> Batch:
        """Return the batch as it is now. Raises: JournalError if no batch has this number."""
        found = self._batches("WHERE number = ?", (number,))
        if not found:
            raise JournalError(f"The journal {self.path} has no batch {number}; `qpeft jobs list` shows all.")
        return found[0]

    def circuits(self, batch: Batch) -> list[tuple[str, int]]:
        """Return hash and number of qubits of every circuit of a batch, in order."""
        with self.database.reading() as connection:
            query = "SELECT hash, num_qubits FROM circuits WHERE batch = ? ORDER BY position"
            return list(connection.execute(query, (batch.number,)))

    def markers(self, batch: Batch) -> dict[int, str]:
        """Return position to bit string of every circuit of known outcome in a batch; an older qpeft planned none."""
        with self.database.reading() as connection:
            query = "SELECT position, marker FROM circuits WHERE batch = ? AND marker IS NOT NULL ORDER BY position"
            return dict(connection.execute(query, (batch.number,)))

    def spent(self, run: str) -> Cost:
        """Return what a run has spent, on all devices."""
        with self.database.reading() as connection:
            return _spent(connection, run)

    def intend(self, batch: Batch, budget: Budget, asked: Cost, *, ticket: str) -> bool:
        """Write down that the batch is about to be sent; False if another process was faster.

        Its cost counts from here on, also if the job fails.

        Args:
            batch: to be sent.
            budget: of its run.
            asked: what the call still has to send, this batch included; it must fit into the budget.
            ticket: of this submission.

        Raises: BudgetError if it does not; nothing is changed.
        """
        with self.database.transaction() as connection:
            # Within the transaction: two processes of a run cannot both be the last that fits.
            budget.check(_spent(connection, batch.run), asked)
            values = {"owner": this_process(), "job_id": None, "ticket": ticket}
            if not _move(connection, batch, {BatchState.PLANNED}, BatchState.INTENDED, **values):
                return False
            _spend(connection, batch, batch.cost)
            return True

    def refused(self, batch: Batch, reason: str, *, ticket: str) -> None:
        """Take an intention back: it is certain that no job exists. Nothing happens if it stands no more.

        Args:
            batch: that was to be sent.
            reason: in words.
            ticket: of the submission.
        """
        with self.database.transaction() as connection:
            if _move(connection, batch, {BatchState.INTENDED}, BatchState.PLANNED, sent_as=ticket, message=reason):
                _spend(connection, batch, Cost(-batch.cost.circuits, -batch.cost.shots))

    def unclear(self, batch: Batch, reason: str, *, ticket: str) -> None:
        """Write down that a submission ended without a job id, though a job may exist.

        Args:
            batch: that was sent.
            reason: in words.
            ticket: of the submission.
        """
        with self.database.transaction() as connection:
            intended = BatchState.INTENDED
            _move(connection, batch, {intended}, intended, sent_as=ticket, message=reason, owner=None)

    def submitted(self, batch: Batch, job_id: str, *, ticket: str) -> bool:
        """Write down under which id the device has what was sent under a ticket.

        Args:
            batch: that was sent.
            job_id: of the device.
            ticket: of the submission.

        Returns: whether the journal has it so now; not, if somebody settled or sent the batch meanwhile.
        """
        with self.database.transaction() as connection:
            if _move(connection, batch, {BatchState.INTENDED}, BatchState.SUBMITTED, sent_as=ticket, job_id=job_id):
                return True
            # Written before already, if an interrupt fell between the commit and the return.
            query = "SELECT ticket, job_id FROM batches WHERE number = ?"
            known: tuple[str, str] = connection.execute(query, (batch.number,)).fetchone()
            return known == (ticket, job_id)

    def finish(self, batch: Batch, distributions: Sequence[Distribution]) -> None:
        """Keep the results, checked by the caller; those of a batch that is finished already stay as they are."""
        assert len(distributions) == batch.num_circuits, "results are checked before they are stored"
        # Bit for bit: json writes the repr of a float, which is read back as the same float.
        plain = [{bits: float(share) for bits, share in distribution.items()} for distribution in distributions]
        texts = [json.dumps(distribution, separators=(",", ":"), allow_nan=False) for distribution in plain]
        # What a power cut takes is fetched again: the device still has it.
        with self.database.transaction(outlives_power_cut=False) as connection:
            if _move(connection, batch, {BatchState.SUBMITTED}, BatchState.FINISHED, message=""):
                connection.executemany(
                    "UPDATE circuits SET distribution = ?, checksum = ? WHERE batch = ? AND position = ?",
                    [(text, zlib.crc32(text.encode()), batch.number, place) for place, text in enumerate(texts)],
                )

    def reject(self, batch: Batch, reason: str, replies: Sequence[Sequence[Mapping[str, float]]]) -> None:
        """Keep what came for a batch and is not used; its state stays. The same once, however often it comes.

        Args:
            batch: whose job it was.
            reason: why it is not used, in words.
            replies: one distribution per circuit in each.
        """
        text = json.dumps([[dict(one) for one in reply] for reply in replies], separators=(",", ":"))
        values = (batch.number, zlib.crc32(text.encode()), time.time(), batch.job_id, reason, text)
        with self.database.transaction() as connection:
            # The key is batch and checksum, so the same replies are kept once.
            connection.execute("INSERT OR IGNORE INTO rejected VALUES (?, ?, ?, ?, ?, ?)", values)

    def move(
        self,
        batch: Batch,
        allowed: AbstractSet[BatchState],
        state: BatchState,
        *,
        message: str,
        job_id: str | None = None,
    ) -> bool:
        """Change the state if it is one of those allowed; return whether it was.

        Args:
            batch: to be moved.
            allowed: states that it may be in.
            state: that it comes to.
            message: why, in words.
            job_id: a new one; None to keep what is there.
        """
        values = {"message": message} if job_id is None else {"message": message, "job_id": job_id}
        with self.database.transaction() as connection:
            return _move(connection, batch, allowed, state, **values)

    def settle(self, batch: Batch, state: BatchState, *, message: str, job_id: str | None = None) -> None:
        """Write down what the user decides about a batch without results.

        What its earlier submission may have cost stays counted.

        Args:
            batch: of which nobody can tell, or whose job is gone.
            state: PLANNED (send it again), LOST, or SUBMITTED under `job_id`.
            message: who decided, in words.
            job_id: under which the device has it.

        Raises: JournalError if it is finished, was never sent, or is being sent right now.
        """
        if batch.state is BatchState.INTENDED and self.is_being_sent(batch):
            raise JournalError(f"{batch} is being sent by a process that still runs ({batch.owner}); end it first.")
        # From the state that was looked at alone: another process may be sending it by now.
        if not self.move(batch, UNSETTLED & {batch.state}, state, message=message, job_id=job_id):
            now = self.batch(batch.number).state.value
            raise JournalError(f"{batch} is {now}: there is nothing to settle. Nothing was changed.")

    def is_being_sent(self, batch: Batch) -> bool:
        """Whether whoever wrote the intention to send it is still at it."""
        return is_sending(batch.owner, self.path, batch.number)

    def add_seconds(self, batch: Batch, seconds: float) -> None:
        """Count time spent with the device."""
        with self.database.transaction(outlives_power_cut=False) as connection:
            _spend(connection, batch, Cost(seconds=seconds))

    def _batches(self, condition: str, values: tuple[object, ...]) -> list[Batch]:
        with self.database.reading() as connection:
            rows = connection.execute(f"{QUERY} {condition}", values).fetchall()
        batches = []
        for step, module, call, part, state, *others in rows:
            columns = dict(zip(COLUMNS, others, strict=True))
            batches.append(Batch(**columns, key=CallKey(module, step, call, part), state=BatchState(state)))
        return batches


def _spent(connection: sqlite3.Connection, run: str) -> Cost:
    query = "SELECT total(circuits), total(shots), total(seconds) FROM spent WHERE run = ?"
    circuits, shots, seconds = connection.execute(query, (run,)).fetchone()
    return Cost(int(circuits), int(shots), seconds)


def _spend(connection: sqlite3.Connection, batch: Batch, cost: Cost) -> None:
    connection.execute(
        """INSERT INTO spent VALUES (?, ?, ?, ?, ?) ON CONFLICT (run, device) DO UPDATE SET
        circuits = circuits + excluded.circuits, shots = shots + excluded.shots,
        seconds = seconds + excluded.seconds""",
        (batch.run, batch.device, cost.circuits, cost.shots, cost.seconds),
    )


def _move(
    connection: sqlite3.Connection,
    batch: Batch,
    allowed: AbstractSet[BatchState],
    state: BatchState,
    *,
    sent_as: str | None = None,
    **columns: str | None,
) -> bool:
    """Whether the batch was in an allowed state; then it is in the new one, and its history says so.

    With `sent_as`, only if that is still the ticket of its last submission: another process may have sent it meanwhile.
    """
    columns = {"state": state.value, "message": "", **columns}
    changes = ", ".join(f"{name} = ?" for name in columns)
    states = ", ".join(f"'{one.value}'" for one in sorted(allowed, key=lambda one: one.value))
    now = time.time()
    # Check and change in one statement: of two processes that want the same, one finds the allowed state.
    changed = connection.execute(
        f"""UPDATE batches SET {changes}, changed_at = ? WHERE number = ? AND state IN ({states})
        AND (? IS NULL OR ticket = ?)""",
        (*columns.values(), now, batch.number, sent_as, sent_as),
    )
    if changed.rowcount == 0:
        return False
    # Copied from the row, so that the history has the job id whether it was given here or before.
    connection.execute(
        "INSERT INTO history SELECT number, ?, state, job_id, message FROM batches WHERE number = ?",
        (now, batch.number),
    )
    return True

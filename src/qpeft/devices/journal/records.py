"""Requests and batches: what tells them apart, and how the circuits of a call are planned into batches."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from itertools import islice
from json import dumps

from qpeft.circuits import Circuit
from qpeft.devices import markers
from qpeft.devices.budget import Cost
from qpeft.devices.protocol import CallKey
from qpeft.errors import JournalError
from qpeft.simulation.noise import NoiseModel


class BatchState(Enum):
    """Where a batch is."""

    PLANNED = "planned"  # not sent
    INTENDED = "intended"  # about to be sent; whoever finds it so after the sender died cannot tell whether it was
    SUBMITTED = "submitted"  # the device has it, and its job id is known
    FINISHED = "finished"  # results are here
    FAILED = "failed"  # the device gave it up; sent again when its call is made again
    CANCELLED = "cancelled"  # stopped; sent again when its call is made again
    LOST = "lost"  # the user gave its results up


@dataclass(frozen=True)
class Batch:
    """One job's worth of circuits.

    Attributes:
        number: by which the user names it.
        run: id of the run that pays for it.
        key: the call that it belongs to.
        hash: of circuits, shots, device and options.
        device: name as in the recipe.
        options: of the device, JSON.
        calibration: hash of the device's calibration when it was planned; None if it was not asked for or has none.
        shots: per circuit; None for exact.
        num_circuits: in it.
        state: where it is.
        job_id: of its last submission.
        ticket: of its last submission, by which the device may know it.
        message: why it is in this state, if there is more to say.
        owner: process that last sent it.
        changed_at: seconds since 1970.
    """

    number: int
    run: str
    key: CallKey
    hash: str
    device: str
    options: str
    calibration: str | None
    shots: int | None
    num_circuits: int
    state: BatchState
    job_id: str | None
    ticket: str | None
    message: str
    owner: str | None
    changed_at: float

    @property
    def cost(self) -> Cost:
        """Price of sending it once."""
        return Cost(self.num_circuits, self.num_circuits * (self.shots or 0))

    def __str__(self) -> str:
        what = f"{self.key}; {self.num_circuits} circuits on {self.device}"
        return f"Batch {self.number} of run {self.run} ({what})"


@dataclass(frozen=True)
class Request:
    """Circuits that one call wants from a device.

    Attributes:
        device: its name.
        options: of the device, canonical JSON.
        shots: per circuit; None for exact.
        hashes: of the circuits, in their order, repetitions included.
        circuits: every different circuit once, by hash.
    """

    device: str
    options: str
    shots: int | None
    hashes: tuple[str, ...]
    circuits: Mapping[str, Circuit]

    @classmethod
    def of(cls, device: str, options: Mapping[str, object], circuits: Sequence[Circuit], shots: int | None) -> Request:
        """Return the request for these circuits.

        Args:
            device: its name.
            options: of the device, plain values.
            circuits: in the order of the answer, repetitions included.
            shots: per circuit; None for exact.

        Raises: JournalError if an angle is unbound or an option is no plain value.
        """
        try:
            # Sorted, so that options in another order make no other batch.
            canonical = dumps(dict(options), sort_keys=True, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise JournalError(f"Device options must be numbers, strings, lists or mappings; {error}.") from error
        hashes = tuple(hash_circuit(circuit) for circuit in circuits)
        return cls(device, canonical, shots, hashes, dict(zip(hashes, circuits, strict=True)))

    @cached_property
    def hash(self) -> str:
        """Hash of all of it; a key that comes back must come with the same one."""
        return hash_batch(self.hashes, self.shots, self.device, self.options)


# Hashes are equal exactly for what is equal, on every machine and in every run: they are stored.


def hash_circuit(circuit: Circuit) -> str:
    """Return the SHA-256 of a bound circuit, angles bit by bit. Observables do not matter: devices do not see them.

    Raises: JournalError if an angle is not a number yet.
    """
    words = [str(circuit.num_qubits)]
    for operation in circuit.operations:
        angle = operation.angle
        if angle is not None and not isinstance(angle, (int, float)):
            raise JournalError(f"Only circuits whose angles are numbers can be sent; bind {angle} first.")
        # Hexadecimal is exact, so an angle that differs in its last bit is another circuit.
        exact = "" if angle is None else float(angle).hex()
        words.append(f"{operation.gate_name} {','.join(map(str, operation.qubits))} {exact}")
    return _hash("\n".join(words))


def hash_batch(circuits: Sequence[str], shots: int | None, device: str, options: str) -> str:
    """Return the SHA-256 of what is sent.

    Args:
        circuits: their hashes, in their order.
        shots: per circuit; None for exact.
        device: its name.
        options: of the device, canonical JSON.
    """
    return _hash(dumps([list(circuits), shots, device, options]))


def hash_calibration(calibration: NoiseModel | None) -> str | None:
    """Return the SHA-256 of what a device says of its errors, every number exactly; None if it says nothing."""
    # A repr of frozen dataclasses of numbers names every field and round-trips every float.
    return None if calibration is None else _hash(repr(calibration))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


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

"""Requests, batches and their states: the words of the journal, and hashes that tell them apart."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from json import dumps

from qpeft.circuits import Circuit
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

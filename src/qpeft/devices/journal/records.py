"""What the journal speaks of: requests, batches and their states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from qpeft.circuits import Circuit
from qpeft.devices.budget import Cost
from qpeft.devices.protocol import CallKey
import hashlib
from json import dumps
from qpeft.errors import JournalError
from qpeft.simulation.noise import NoiseModel


def describe(key: CallKey) -> str:
    """A key in words."""
    return f"step {key.step}, module {key.module or 'none'}, call {key.call}, {key.part}"


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
        """Of sending it once."""
        return Cost(self.num_circuits, self.num_circuits * (self.shots or 0))

    def __str__(self) -> str:
        what = f"{describe(self.key)}; {self.num_circuits} circuits on {self.device}"
        return f"Batch {self.number} of run {self.run} ({what})"


@dataclass(frozen=True)
class Request:
    """What one call asks of a device.

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
        """The request for these circuits.

        Raises: JournalError if an angle is unbound or an option is no plain value.
        """
        hashes = tuple(hash_circuit(circuit) for circuit in circuits)
        return cls(device, canonical_options(options), shots, hashes, dict(zip(hashes, circuits, strict=True)))

    @cached_property
    def hash(self) -> str:
        """Of all of it; a key that comes back must come with the same one."""
        return hash_batch(self.hashes, self.shots, self.device, self.options)


# Hashes of circuits, batches and calibrations: equal exactly for what is equal, on every machine and in every run.


def hash_circuit(circuit: Circuit) -> str:
    """SHA-256 of a bound circuit, angles bit by bit. Observables do not matter: devices do not see them.

    Raises: JournalError if an angle is not a number yet.
    """
    words = [str(circuit.num_qubits)]
    for operation in circuit.operations:
        angle = operation.angle
        if angle is not None and not isinstance(angle, (int, float)):
            raise JournalError(f"Only circuits whose angles are numbers can be sent; bind {angle} first.")
        exact = "" if angle is None else float(angle).hex()
        words.append(f"{operation.gate_name} {','.join(map(str, operation.qubits))} {exact}")
    return _hash("\n".join(words))


def hash_batch(circuits: Sequence[str], shots: int | None, device: str, options: str) -> str:
    """SHA-256 of what is sent: hashes of circuits in their order, shots, name of the device, canonical options."""
    return _hash(dumps([list(circuits), shots, device, options]))


def canonical_options(options: Mapping[str, object]) -> str:
    """Options of a device as JSON with sorted keys. Raises: JournalError if they are not plain values."""
    try:
        return dumps(dict(options), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise JournalError(f"Device options must be numbers, strings, lists or mappings; {error}.") from error


def hash_calibration(calibration: NoiseModel | None) -> str | None:
    """SHA-256 of what a device says of its errors, every number exactly; None if it says nothing."""
    # A repr of frozen dataclasses of numbers names every field and round-trips every float.
    return None if calibration is None else _hash(repr(calibration))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()

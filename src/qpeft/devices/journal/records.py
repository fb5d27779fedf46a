"""What the journal speaks of: requests, batches and their states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

from qpeft.circuits import Circuit
from qpeft.devices.budget import Cost
from qpeft.devices.journal.hashing import canonical_options, hash_batch, hash_circuit
from qpeft.devices.protocol import CallKey


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

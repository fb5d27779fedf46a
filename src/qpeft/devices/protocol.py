"""The interface of every quantum device: circuits in, distributions out, by jobs that outlive their sender.

Submitting, asking and fetching are separate calls, so that a caller can write a job's id down before it waits. `run`
does all three for callers that need no such care.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, TypeAlias, runtime_checkable

from qpeft.circuits import Circuit
from qpeft.devices import markers
from qpeft.errors import DeviceError, JobError, ShotsError
from qpeft.simulation.checks import check_shots
from qpeft.simulation.noise import NoiseModel

Distribution: TypeAlias = dict[str, float]
"""Bit string to share of the shots; leftmost bit is qubit 0, shares sum to 1. What never came out may be missing.

Where a device corrects readout, single shares may be below 0 and others above 1."""
TOTAL_TOLERANCE = 1e-3
LOWEST_SHARE = -1.0
"""Where readout errors were taken out, single shares may be below 0; to refuse them would strand results paid for."""


@dataclass(frozen=True)
class Capabilities:
    """Limits and habits of a device.

    Attributes:
        name: as in the user's recipe.
        num_qubits: largest circuit.
        gate_names: gates of our table that it takes.
        max_shots: per circuit; None for no limit.
        max_circuits: per job; None for no limit.
        can_be_exact: whether `shots=None` gives exact probabilities.
        is_remote: whether circuits leave this machine.
        recipient: who gets them then; empty where the name says it.
        keeps_jobs: whether a job outlives the process that sent it and can be fetched by another.
        seconds_per_job: rough, for estimates, without shots and other users' jobs; None if nobody knows.
        seconds_per_shot: the same for one shot of one circuit.
        corrects_readout: whether readout errors are taken out of distributions before they come back.
        simplifies_circuits: whether gates that undo each other may be left out.
        chooses_qubits: whether circuits of one width may run on different qubits of a chip.
        answers_by_place: whether nothing in an answer says which circuit it is of. Then jobs hold circuits of known
            outcome as well, which are paid for and show whether the order is right (`devices.markers`).
    """

    name: str
    num_qubits: int
    gate_names: frozenset[str]
    max_shots: int | None
    max_circuits: int | None
    can_be_exact: bool
    is_remote: bool
    recipient: str = ""
    keeps_jobs: bool = True
    seconds_per_job: float | None = None
    seconds_per_shot: float | None = None
    corrects_readout: bool = False
    simplifies_circuits: bool = False
    chooses_qubits: bool = False
    answers_by_place: bool = False

    def num_markers(self, num_circuits: int) -> int:
        """Return how many circuits of known outcome a job of `num_circuits` others holds beside them."""
        return markers.num_markers(num_circuits) if self.answers_by_place else 0

    @property
    def circuits_per_job(self) -> int | None:
        """Circuits that a full job holds beside those of known outcome; None for no limit."""
        return None if self.max_circuits is None else self.max_circuits - self.num_markers(self.max_circuits)


class JobState(Enum):
    """Where a job is."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether it will stay like this."""
        return self in {JobState.FINISHED, JobState.FAILED, JobState.CANCELLED}


@dataclass(frozen=True)
class JobStatus:
    """State, and in the device's own words why it failed."""

    state: JobState
    message: str = ""


class AbstractDevice(ABC):
    """A quantum computer, a cloud of them, or a simulator that behaves like one.

    Circuits are bound (`circuits.binding.bind`): every angle is a number. All qubits are measured in the Z basis at the
    end; a circuit's observables do not matter here. Bit strings are in our order on both sides of this class.
    """

    @abstractmethod
    def capabilities(self) -> Capabilities:
        """Return what this device can do."""

    @abstractmethod
    def submit(self, circuits: Sequence[Circuit], shots: int | None, *, ticket: str | None = None) -> str:
        """Send one job and return its id at once.

        Args:
            circuits: one or more.
            shots: per circuit; None for exact probabilities.
            ticket: a name that no other submission has, for `find_job`.

        Raises: RefusedError or CredentialsError if it is certain that no job exists; any other DeviceError if one may.
        """

    def prepare(self, ticket: str) -> None:  # noqa: B027
        """Note that a submission under this ticket will be made, before the journal says that it may have been.

        Nothing by default, for devices that keep no tickets here. Raises: RefusedError if that cannot be noted.
        """

    def find_job(self, ticket: str) -> str | None:  # noqa: ARG002
        """Return the id of a job whose sender died in the call that had this ticket; None if there is no job.

        Raises: JobError if it cannot be told, as here, for devices that keep no tickets.
        """
        raise JobError(f"{self.capabilities().name} cannot tell what became of a submission.")

    def place(self, circuit: Circuit) -> tuple[int, ...] | None:  # noqa: ARG002
        """Return the chip's qubit for every qubit of the circuit; None if the device chooses.

        Raises: DeviceError if the circuit cannot run there.
        """
        return None

    @abstractmethod
    def poll(self, job_id: str) -> JobStatus:
        """Return the state of a job, without waiting. Raises: JobError if the device does not know it."""

    @abstractmethod
    def fetch(self, job_id: str) -> list[Distribution]:
        """Return results of a finished job, one per circuit and in their order, as often as asked.

        Raises: JobError if it is not finished; DeviceError if results are missing or malformed.
        """

    @abstractmethod
    def cancel(self, job_id: str) -> None:
        """Stop a job if it can still be stopped; nothing happens if it is over."""

    @abstractmethod
    def calibration(self) -> NoiseModel | None:
        """Return what the device says of its own errors; None if it says nothing or has none."""


def device_shots(capabilities: Capabilities, shots: int | None) -> int | None:
    """Return shots per circuit as an int, whatever type of integer came; None for exact values.

    Raises: ShotsError if the device takes no such number.
    """
    name, remedy = capabilities.name, "For exact values use 'local' with shots=None."
    if shots is None:
        if not capabilities.can_be_exact:
            raise ShotsError(f"{name} samples, so shots must be at least 1; got None. {remedy}")
        return None
    number = check_shots(shots, f"{name} samples", remedy)
    if capabilities.max_shots is not None and number > capabilities.max_shots:
        raise ShotsError(f"{name} takes at most {capabilities.max_shots:,} shots per circuit; got {number:,}.")
    return number


def check_request(capabilities: Capabilities, circuits: Sequence[Circuit], shots: int | None) -> int | None:
    """Check everything that can be known to fail before something is sent.

    Args:
        capabilities: of the device.
        circuits: of one job.
        shots: per circuit; None for exact values.

    Returns: the shots, as `device_shots` does.
    Raises: ShotsError or DeviceError, saying what came and what the device takes.
    """
    name = capabilities.name
    shots = device_shots(capabilities, shots)
    if capabilities.max_circuits is not None and len(circuits) > capabilities.max_circuits:
        raise DeviceError(f"{name} takes at most {capabilities.max_circuits} circuits a job; got {len(circuits)}.")
    for circuit in circuits:
        if circuit.num_qubits > capabilities.num_qubits:
            raise DeviceError(f"{name} has {capabilities.num_qubits} qubits; the circuit needs {circuit.num_qubits}.")
        if circuit.num_inputs or circuit.num_weights:
            raise DeviceError("A device runs circuits whose angles are numbers; bind inputs and weights first.")
        # Nothing is rewritten here: a device that can translate a gate lists it.
        unknown = {operation.gate_name for operation in circuit.operations} - capabilities.gate_names
        if unknown:
            raise DeviceError(f"{name} has no gate {', '.join(sorted(unknown))}; use another ansatz.")
    return shots


def check_results(circuits: Sequence[Circuit], results: Sequence[Distribution]) -> None:
    """Raise DeviceError if there is not one proper distribution per circuit."""
    if len(results) != len(circuits):
        raise DeviceError(f"{len(circuits)} circuits were sent and {len(results)} results came back; none is used.")
    for number, (circuit, result) in enumerate(zip(circuits, results, strict=True)):
        if any(len(bits) != circuit.num_qubits or not set(bits) <= {"0", "1"} for bits in result):
            raise DeviceError(f"Result {number} is not about {circuit.num_qubits} qubit(s): {list(result)[:3]}.")
        total = sum(result.values())
        # `not ... <=` rather than `>`, so that NaN is refused too.
        if not abs(total - 1) <= TOTAL_TOLERANCE or min(result.values(), default=0.0) < LOWEST_SHARE:
            raise DeviceError(f"Result {number} is no distribution: its {len(result)} shares sum to {total:.4f}.")


def run(
    device: AbstractDevice, circuits: Sequence[Circuit], shots: int | None, *, seconds_between_polls: float = 1.0
) -> list[Distribution]:
    """Submit, wait and fetch, in as many jobs as the device needs, and store nothing.

    Args:
        device: that runs them.
        circuits: bound.
        shots: per circuit; None for exact values.
        seconds_between_polls: pause between two questions about a job.

    Returns: one distribution per circuit, in their order.
    Raises: what the device raises; JobError if a job fails or is cancelled; OrderError if results are out of order.
    """
    capabilities = device.capabilities()
    size = capabilities.circuits_per_job or max(1, len(circuits))
    jobs: list[tuple[str, list[Circuit], dict[int, str]]] = []
    # All jobs are sent before the first is waited for: a cloud may run them side by side.
    for first in range(0, len(circuits), size):
        asked, known = circuits[first : first + size], {}
        # Drawn from circuits and shots, so that the same job has the same markers.
        if capabilities.answers_by_place:
            widest = max(circuit.num_qubits for circuit in asked)
            known = markers.draw_markers(repr((list(asked), shots)), len(asked), widest)
        sent = markers.with_markers(asked, known)
        jobs.append((device.submit(sent, shots), sent, known))
    results: list[Distribution] = []
    for job_id, sent, known in jobs:
        while not (status := device.poll(job_id)).state.is_final:
            time.sleep(seconds_between_polls)
        if status.state is not JobState.FINISHED:
            raise JobError(f"Job {job_id} {status.state.value}: {status.message or 'the device gives no reason'}.")
        found = device.fetch(job_id)
        check_results(sent, found)
        markers.check_order(known, found, shots)
        # Markers are ours: the caller gets what was asked for.
        results += [result for place, result in enumerate(found) if place not in known]
    return results


@dataclass(frozen=True)
class CallKey:
    """Names what a batch of circuits is for, so that whoever stores results finds them again.

    Attributes:
        module: name of the module whose circuit it is; empty outside a model.
        step: of the training.
        call: number of the evaluation within module and step; a repetition with equal angles keeps its number.
        part: "values" of a forward pass, "gradient" of its backward pass, or "readout", which is measured for both.
    """

    module: str = ""
    step: int = 0
    call: int = 0
    part: str = "values"

    def __str__(self) -> str:
        return f"step {self.step}, module {self.module or 'none'}, call {self.call}, {self.part}"


ONLY_CALL = CallKey()
"""Outside a model, where nothing needs to be told apart."""


@runtime_checkable
class Runner(Protocol):
    """Gets distributions for circuits from a device, one per circuit, checked by `check_results`.

    Everything that this package sends goes through one of these, so a journal or a budget is put here. Circuits are
    bound and all different. A call that is repeated, as gradient checkpointing does, comes under the same key with the
    same circuits: who stores results returns those, and `run_now` samples anew.
    """

    def __call__(
        self, device: AbstractDevice, circuits: Sequence[Circuit], shots: int | None, *, key: CallKey
    ) -> list[Distribution]:
        """Return distributions of these circuits, in their order.

        Args:
            device: that runs them.
            circuits: bound.
            shots: per circuit; None for exact values.
            key: what they are for.
        """


def run_now(
    device: AbstractDevice,
    circuits: Sequence[Circuit],
    shots: int | None,
    *,
    key: CallKey,  # noqa: ARG001
) -> list[Distribution]:
    """Submit, wait and fetch: the runner that stores nothing.

    Args:
        device, circuits, shots: as for `run`.
        key: is not used.

    Raises: as `run`.
    """
    return run(device, circuits, shots)


@dataclass(frozen=True)
class Measure:
    """Measures circuits on one device through one runner: all that an error mitigation needs to know of a caller.

    Two are equal if device and runner are, so what was measured for one holds for the other.
    """

    # Not hashed, since runners and devices of other packages may have no hash. Equality still tells them apart.
    device: AbstractDevice = field(hash=False)
    runner: Runner = field(hash=False)

    @property
    def device_name(self) -> str:
        return self.device.capabilities().name

    def __call__(self, circuits: Sequence[Circuit], shots: int | None, key: CallKey) -> list[Distribution]:
        """Return one distribution per circuit, in their order.

        Args:
            circuits: bound and all different.
            shots: per circuit; None for exact probabilities.
            key: what they are for.

        Raises: what the runner raises; DeviceError if it returns too few or too many results.
        """
        results = self.runner(self.device, circuits, shots, key=key)
        if len(results) != len(circuits):
            raise DeviceError(f"The runner was given {len(circuits)} circuits and returned {len(results)} results.")
        return results

"""Our own simulator as a device: exact, or with shots and noise, reproducible from a seed."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from qpeft.circuits import GATES, Circuit, Input
from qpeft.devices.protocol import (
    AbstractDevice,
    Capabilities,
    Distribution,
    JobState,
    JobStatus,
    check_request,
)
from qpeft.errors import DeviceError, JobError, NoiseError
from qpeft.simulation.noise import NoiseModel, SampleKey, density
from qpeft.simulation.noise.counter import Stream
from qpeft.simulation.noise.outcomes import MAX_QUBITS, outcome_probabilities

KEPT_OUTCOMES = 2**22
"""Results of so many bit strings stay in memory, about 400 MB; older jobs are forgotten, and asking for one says so."""
NUMBERS_PER_BLOCK = 2**20
"""Circuits are simulated in blocks of this many float64 numbers, 8 MiB."""


@dataclass
class _Job:
    circuits: tuple[Circuit, ...]
    shots: int | None
    state: JobState = JobState.WAITING
    results: list[Distribution] = field(default_factory=list)


class LocalDevice(AbstractDevice):
    """A quantum computer made of our simulator, for tests, for planning, and wherever no chip is at hand.

    A job is computed when it is first asked about. Samples are a function of (seed, number of the job, place of the
    circuit in it): two devices with the same seed give the same results to the same jobs.

    Args:
        num_qubits: largest circuit; None for as many as can be simulated, 20 or with noise 8.
        seed: of the samples, from 0 to 2**64 - 1.
        noise: of the gates and of readout; None for a perfect machine.

    Raises: DeviceError if num_qubits cannot be simulated; NoiseError if the noise model lacks one of the qubits.
    """

    def __init__(self, *, num_qubits: int | None = None, seed: int = 0, noise: NoiseModel | None = None) -> None:
        largest = MAX_QUBITS if noise is None else min(density.MAX_QUBITS, len(noise.qubits))
        self._num_qubits = largest if num_qubits is None else num_qubits
        if not 1 <= self._num_qubits <= largest:
            kind = "without noise" if noise is None else "with this noise model"
            raise DeviceError(f"local simulates 1 to {largest} qubits {kind}; got num_qubits={num_qubits}.")
        if noise is not None:
            noise.check_covers(Circuit(self._num_qubits, ()))
        self._seed, self._noise = SampleKey(seed).seed, noise
        self._jobs: list[_Job | None] = []
        self._finished: deque[tuple[int, int]] = deque()  # number of a job, number of its outcomes
        self._kept_outcomes = 0

    def capabilities(self) -> Capabilities:
        """All gates, any number of shots and circuits, and exact probabilities."""
        return Capabilities(
            name="local",
            num_qubits=self._num_qubits,
            gate_names=frozenset(GATES),
            max_shots=None,
            max_circuits=None,
            can_be_exact=True,
            is_remote=False,
            keeps_jobs=False,
        )

    def submit(self, circuits: Sequence[Circuit], shots: int | None, *, ticket: str | None = None) -> str:  # noqa: ARG002
        """Keep a job for later. Raises: as `check_request`, and DeviceError if the noise model lacks an edge."""
        check_request(self.capabilities(), circuits, shots)
        if self._noise is not None:
            _check_all(self._noise, circuits)
        self._jobs.append(_Job(tuple(circuits), shots))
        return f"local-{len(self._jobs) - 1}"

    def poll(self, job_id: str) -> JobStatus:
        """The state after the job was run, which happens here, once. Raises: JobError if it is unknown."""
        number, job = self._find(job_id)
        if not job.state.is_final:
            job.results, job.circuits, job.state = self._run(number, job), (), JobState.FINISHED
            self._keep(number, sum(map(len, job.results)))
        return JobStatus(job.state)

    def fetch(self, job_id: str) -> list[Distribution]:
        """Copies of the results. Raises: JobError if the job is unknown, cancelled or was never polled."""
        _, job = self._find(job_id)
        if job.state is not JobState.FINISHED:
            raise JobError(f"Job {job_id} is {job.state.value}, so it has no results; poll it until it is finished.")
        return [dict(result) for result in job.results]

    def cancel(self, job_id: str) -> None:
        """Never run this job; nothing happens if it is over. Raises: JobError if it is unknown."""
        _, job = self._find(job_id)
        if not job.state.is_final:
            job.circuits, job.state = (), JobState.CANCELLED

    def calibration(self) -> NoiseModel | None:
        """The noise model that it was made with."""
        return self._noise

    def _find(self, job_id: str) -> tuple[int, _Job]:
        prefix, _, digits = job_id.partition("-")
        number = int(digits) if prefix == "local" and digits.isdecimal() else len(self._jobs)
        if number >= len(self._jobs):
            raise JobError(f"local has no job {job_id!r}; jobs live as long as the device object that took them.")
        job = self._jobs[number]
        if job is None:
            raise JobError(
                f"local has forgotten job {job_id!r}: it keeps the last {KEPT_OUTCOMES:,} bit strings that came out. "
                "Fetch sooner, or in smaller jobs."
            )
        return number, job

    def _keep(self, number: int, outcomes: int) -> None:
        self._finished.append((number, outcomes))
        self._kept_outcomes += outcomes
        while self._kept_outcomes > KEPT_OUTCOMES and len(self._finished) > 1:
            oldest, outcomes = self._finished.popleft()
            self._jobs[oldest] = None
            self._kept_outcomes -= outcomes

    def _run(self, number: int, job: _Job) -> list[Distribution]:
        results: list[Distribution] = [{}] * len(job.circuits)
        for places, probabilities in _simulated(job.circuits, self._noise):
            for place, row in zip(places, probabilities, strict=True):
                if job.shots is not None:
                    key = SampleKey(self._seed, step=number, module="local", call=place)
                    row = _shares(row, Stream(key).uniforms(job.shots))  # noqa: PLW2901
                results[place] = _distribution(row, job.circuits[place].num_qubits)
        return results


def _check_all(noise: NoiseModel, circuits: Iterable[Circuit]) -> None:
    try:
        for circuit in circuits:
            noise.check_covers(circuit)
    except NoiseError as error:
        raise DeviceError(f"local cannot run this circuit, so no job was made: {error}") from error


def _simulated(circuits: Sequence[Circuit], noise: NoiseModel | None) -> Iterable[tuple[Sequence[int], Tensor]]:
    """Probabilities of all circuits, float64, in batches that differ in nothing but angles: places and rows."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for place, circuit in enumerate(circuits):
        shape = (circuit.num_qubits, *((operation.gate_name, operation.qubits) for operation in circuit.operations))
        groups.setdefault(shape, []).append(place)
    for members in groups.values():
        skeleton = _skeleton(circuits[members[0]])
        numbers = (2 if noise is None else 2**skeleton.num_qubits) * 2**skeleton.num_qubits
        size = max(1, NUMBERS_PER_BLOCK // numbers)
        for first in range(0, len(members), size):
            places = members[first : first + size]
            angles = torch.tensor([_angles(circuits[place]) for place in places], dtype=torch.float64)
            weights = torch.zeros(0, dtype=torch.float64)
            yield places, outcome_probabilities(skeleton, angles, weights, "Z" * skeleton.num_qubits, noise)


def _skeleton(circuit: Circuit) -> Circuit:
    """The circuit with an input in place of each number."""
    number = itertools.count()
    operations = (
        operation if operation.angle is None else replace(operation, angle=Input(next(number)))
        for operation in circuit.operations
    )
    return Circuit(circuit.num_qubits, tuple(operations))


def _angles(circuit: Circuit) -> list[float]:
    """The numbers of a bound circuit, radians, in the order of its gates."""
    return [operation.angle for operation in circuit.operations if isinstance(operation.angle, (int, float))]


def _shares(probabilities: Tensor, draws: Tensor) -> Tensor:
    cumulative = probabilities.cumsum(0)
    # right=True: the first outcome whose cumulative probability exceeds the draw, never one of probability 0.
    outcomes = torch.searchsorted(cumulative, draws * cumulative[-1], right=True).clamp(max=len(cumulative) - 1)
    return torch.bincount(outcomes, minlength=len(cumulative)).double() / len(draws)


def _distribution(shares: Tensor, num_qubits: int) -> Distribution:
    outcomes = shares.nonzero().flatten().tolist()
    return {
        f"{outcome:0{num_qubits}b}": share for outcome, share in zip(outcomes, shares[outcomes].tolist(), strict=True)
    }

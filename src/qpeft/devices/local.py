"""Our own simulator as a device: exact, or with shots and noise, reproducible from a seed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import torch

from qpeft.circuits import GATES, Circuit, Input
from qpeft.devices.memory_jobs import MemoryJobs
from qpeft.devices.protocol import AbstractDevice, Capabilities, Distribution, check_request
from qpeft.errors import DeviceError, NoiseError
from qpeft.simulation.checks import whole_number
from qpeft.simulation.noise import NoiseModel, SampleKey, density
from qpeft.simulation.noise.counter import Stream
from qpeft.simulation.noise.outcomes import outcome_probabilities
from qpeft.simulation.shots import sampled
from qpeft.simulation.states import MAX_QUBITS

NUMBERS_PER_BLOCK = 2**20
"""Circuits are simulated in blocks of this many float64 numbers, 8 MiB."""


class LocalDevice(MemoryJobs, AbstractDevice):
    """A quantum computer made of our simulator, for tests, for planning, and wherever no chip is at hand.

    A job is computed when it is first polled. Samples are a function of (seed, number of the job, place of the
    circuit in it): two devices with the same seed give the same results to the same jobs.

    Args:
        num_qubits: largest circuit; None for as many as can be simulated, 20 or with noise 8.
        seed: of the samples, from 0 to 2**64 - 1.
        noise: of the gates and of readout; None for a perfect machine.

    Raises: DeviceError if num_qubits cannot be simulated; NoiseError if the noise model lacks one of the qubits.
    """

    def __init__(self, *, num_qubits: int | None = None, seed: int = 0, noise: NoiseModel | None = None) -> None:
        super().__init__("local")
        largest = MAX_QUBITS if noise is None else min(density.MAX_QUBITS, len(noise.qubits))
        self._num_qubits = largest if num_qubits is None else whole_number(num_qubits) or 0
        if not 1 <= self._num_qubits <= largest:
            kind = "without noise" if noise is None else "with this noise model"
            raise DeviceError(f"local simulates 1 to {largest} qubits {kind}; got num_qubits={num_qubits!r}.")
        # A qubit that the model lacks is named now, and not by the first job.
        if noise is not None:
            noise.check_covers(Circuit(self._num_qubits, ()))
        self._seed, self._noise = SampleKey(seed).seed, noise
        self._numbers = itertools.count()

    def capabilities(self) -> Capabilities:
        """Return: all gates, any number of shots and circuits, and exact probabilities."""
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
        """Keep a job for later and return its id.

        Args:
            circuits, shots: as for every device.
            ticket: is not used, as jobs end with this process.

        Raises: as `check_request`, and DeviceError if the noise model lacks an edge.
        """
        shots = check_request(self.capabilities(), circuits, shots)
        try:
            if self._noise is not None:
                for circuit in circuits:
                    self._noise.check_covers(circuit)
        except NoiseError as error:
            raise DeviceError(f"local cannot run this circuit, so no job was made: {error}") from error
        kept, number = tuple(circuits), next(self._numbers)
        return self.add(lambda: self._run(number, kept, shots))

    def calibration(self) -> NoiseModel | None:
        """Return the noise model that it was made with."""
        return self._noise

    def _run(self, number: int, circuits: Sequence[Circuit], shots: int | None) -> list[Distribution]:
        # Circuits that differ in nothing but angles are simulated together.
        groups: dict[tuple[object, ...], list[int]] = {}
        for place, circuit in enumerate(circuits):
            shape = (circuit.num_qubits, *((operation.gate_name, operation.qubits) for operation in circuit.operations))
            groups.setdefault(shape, []).append(place)
        results: list[Distribution] = [{}] * len(circuits)
        for members in groups.values():
            # An input in place of each number, so that the numbers are rows of a batch.
            first, inputs = circuits[members[0]], itertools.count()
            skeleton = Circuit(
                first.num_qubits,
                tuple(
                    operation if operation.angle is None else replace(operation, angle=Input(next(inputs)))
                    for operation in first.operations
                ),
            )
            # A state has 2^n complex numbers, a density matrix 4^n real ones.
            num_qubits, weights = first.num_qubits, torch.zeros(0, dtype=torch.float64)
            size = max(1, NUMBERS_PER_BLOCK // ((2 if self._noise is None else 2**num_qubits) * 2**num_qubits))
            for places in (members[start : start + size] for start in range(0, len(members), size)):
                angles = torch.tensor(
                    [[one.angle for one in circuits[place].operations if one.angle is not None] for place in places],
                    dtype=torch.float64,
                )
                shares = outcome_probabilities(skeleton, angles, weights, "Z" * num_qubits, self._noise)
                for place, row in zip(places, shares, strict=True):
                    if shots is not None:
                        # By the place in the job, so that samples do not depend on how circuits were grouped.
                        key = SampleKey(self._seed, step=number, module="local", call=place)
                        row = sampled(row[None], Stream(key), shots)[0].double() / shots  # noqa: PLW2901
                    outcomes = row.nonzero().flatten().tolist()
                    chances = zip(outcomes, row[outcomes].tolist(), strict=True)
                    results[place] = {f"{outcome:0{num_qubits}b}": share for outcome, share in chances}
        return results

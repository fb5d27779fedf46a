"""The emulator's chip as a device in this process: a fixed block of qubits, no cloud, and exact shares on request."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from qpeft.circuits import GATES, Circuit, Operation, ansatz, bind
from qpeft.circuits.native import to_native
from qpeft.circuits.origin_ir import to_origin_ir
from qpeft.devices import AbstractDevice, Capabilities, Distribution, JobState, JobStatus
from qpeft.devices.protocol import check_request
from qpeft.simulation.noise import NoiseModel, QubitNoise, ReadoutError, SampleKey
from qpeft.simulation.noise.counter import Stream
from qpeft_emulator import density, placement
from qpeft_emulator.machine import Machine
from qpeft_emulator.parser import parse_origin_ir

Shares = npt.NDArray[np.float64]


class EmulatedChip(AbstractDevice):
    """Runs every circuit gate by gate on one block, hidden effects and drift by job number included.

    Args:
        machine: chip and what it hides.
        block: its qubits, one per qubit of the circuits, coupled where these have gates on two.
        amend: take readout errors out of the shares as the cloud does: without drift, negative shares set to 0.
        seed: of the samples.
        known: exact shares by circuit and job number, for devices of one machine and block to share.
    """

    def __init__(
        self,
        machine: Machine,
        block: Sequence[int],
        *,
        amend: bool = False,
        seed: int = 0,
        known: dict[tuple[Circuit, int], Shares] | None = None,
    ) -> None:
        self._machine, self._block, self._amend, self._seed = machine, list(block), amend, seed
        self._known = {} if known is None else known
        self._jobs: list[tuple[list[Circuit], int | None]] = []

    def capabilities(self) -> Capabilities:
        """Of a machine that leaves circuits and their places alone."""
        return Capabilities(
            "emulated chip",
            len(self._block),
            frozenset(GATES),
            None,
            None,
            can_be_exact=True,
            is_remote=False,
            corrects_readout=self._amend,
        )

    def submit(self, circuits: Sequence[Circuit], shots: int | None, *, ticket: str | None = None) -> str:  # noqa: ARG002
        """Keep a job. Raises: as `check_request`."""
        check_request(self.capabilities(), circuits, shots)
        self._jobs.append((list(circuits), shots))
        return str(len(self._jobs) - 1)

    def poll(self, job_id: str) -> JobStatus:  # noqa: ARG002
        """Finished."""
        return JobStatus(JobState.FINISHED)

    def fetch(self, job_id: str) -> list[Distribution]:
        """One distribution per circuit."""
        circuits, shots = self._jobs[int(job_id)]
        return [self._distribution(circuit, shots, int(job_id), place) for place, circuit in enumerate(circuits)]

    def cancel(self, job_id: str) -> None:
        """Too late."""

    def calibration(self) -> NoiseModel:
        """What the chip lists of the block, as qubits 0, 1, ...; readout with one error for both outcomes."""
        listed, noise = self._machine.chip, self._machine.gate_noise
        qubits = {}
        for place, qubit in enumerate(self._block):
            known, misread = noise.qubit(qubit), 1 - listed.qubits[qubit].readout_fidelity
            qubits[place] = QubitNoise(known.depolarising, known.damping, ReadoutError(misread, misread))
        pairs = itertools.combinations(range(len(self._block)), 2)
        edges = {
            (a, b): noise.edge(self._block[a], self._block[b])
            for a, b in pairs
            if listed.has_edge(self._block[a], self._block[b])
        }
        return NoiseModel.from_mappings(qubits, edges)

    def _distribution(self, circuit: Circuit, shots: int | None, job_number: int, place: int) -> Distribution:
        if (circuit, job_number) not in self._known:
            self._known[circuit, job_number] = self._exact(circuit, job_number)
        shares = self._known[circuit, job_number]
        if shots is not None:
            draws = Stream(SampleKey(self._seed, job_number, "chip", place)).uniforms(shots).numpy()
            outcomes = np.searchsorted(np.cumsum(shares), draws, side="right").clip(max=len(shares) - 1)
            shares = np.bincount(outcomes, minlength=len(shares)) / shots
        if self._amend:
            shares = self._amended(shares)
        return {f"{k:0{len(self._block)}b}": float(share) for k, share in enumerate(shares) if share}

    def _exact(self, circuit: Circuit, job_number: int) -> Shares:
        operations = [
            Operation(gate.gate_name, tuple(self._block[qubit] for qubit in gate.qubits), gate.angle)
            for gate in circuit.operations
        ]
        native = to_native(operations, optimise=False)
        return density.outcome_probabilities(self._machine, native, self._block, self._block, job_number)

    def _amended(self, shares: Shares) -> Shares:
        whole = shares.reshape([2] * len(self._block))
        for axis, qubit in enumerate(self._block):
            errors = self._machine.known_readout(qubit)
            confusion = [[1 - errors.p1_given_0, errors.p0_given_1], [errors.p1_given_0, 1 - errors.p0_given_1]]
            whole = np.moveaxis(np.tensordot(np.linalg.inv(confusion), whole, (1, axis)), 0, axis)
        positive = whole.clip(min=0).reshape(-1)
        return np.asarray(positive / positive.sum())


def ring_block(machine: Machine, num_qubits: int) -> list[int]:
    """Living qubits of the chip on which a ring fits, as the emulator's own mapping chooses them."""
    circuit = ansatz.ring_cz(num_qubits)
    bound = bind(circuit, [0.0] * circuit.num_inputs, [0.0] * circuit.num_weights)
    program = parse_origin_ir(to_origin_ir(bound))
    places = placement.mapped(program, machine.chip, tuple(machine.chip.qubits)).places
    return [places[qubit] for qubit in range(num_qubits)]

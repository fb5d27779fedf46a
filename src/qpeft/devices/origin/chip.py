"""What the cloud lists of a chip: who is alive, and a noise model of it.

Fidelities are average gate fidelities. Gates last as long as QGateClock says, taken as nanoseconds, T1 and T2 as
microseconds; the vendor's documents name no unit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from qpeft.errors import DeviceError
from qpeft.simulation.noise import (
    Damping,
    EdgeNoise,
    NoiseModel,
    QubitNoise,
    ReadoutError,
    depolarising_from_fidelity,
)

Edge = tuple[int, int]
STEPS = 50
"""Halvings in the search for the share of dephasing."""


@dataclass(frozen=True)
class QubitFacts:
    """Fidelities of a living qubit, and its times in microseconds."""

    readout_fidelity: float
    gate_fidelity: float
    t1: float
    t2: float


@dataclass(frozen=True)
class Chip:
    """The living part of a chip.

    Attributes:
        name: as the cloud calls it.
        num_listed: qubits, dead ones included.
        qubits: number to facts.
        edges: couplers, smaller qubit first, to the fidelity of CZ.
        gate_times: of a gate on one qubit and of one on two, nanoseconds.
    """

    name: str
    num_listed: int
    qubits: Mapping[int, QubitFacts]
    edges: Mapping[Edge, float]
    gate_times: tuple[float, float]

    @property
    def median_fidelities(self) -> tuple[float, float, float]:
        """Medians for gates on one qubit, CZ and readout; NaN where nothing is alive."""
        ones = self.qubits.values()
        columns = [one.gate_fidelity for one in ones], list(self.edges.values()), [one.readout_fidelity for one in ones]
        single, double, readout = (median(column) if column else math.nan for column in columns)
        return single, double, readout


def chip_from(listed: Mapping[str, Any]) -> Chip:
    """Return a chip from `Client.chip`; what is not available, or no better than noise, is left out.

    Raises: DeviceError if a fidelity is above 1.
    """
    available = set(listed["available"])
    qubits = {
        int(number): QubitFacts(float(readout), float(gate), float(t1), float(t2))
        for number, readout, gate, t1, t2 in listed["qubits"]
        if number in available and _lives(readout, 2) and _lives(gate, 2) and t1 > 0 and t2 > 0
    }
    edges: dict[Edge, float] = {}
    for first, second, fidelity in listed["edges"]:
        if first in qubits and second in qubits and _lives(fidelity, 4):
            edge = (min(first, second), max(first, second))
            # A coupler may be listed from both ends; where the two differ the worse counts.
            edges[edge] = min(float(fidelity), edges.get(edge, 1.0))
    single, double = listed["gate_times"]
    return Chip(str(listed["name"]), int(listed["num_qubits"]), qubits, edges, (float(single), float(double)))


def noise_model_of(chip: Chip) -> NoiseModel:
    """Noise that explains the listed fidelities, on the chip's own qubit numbers.

    Listed T2 are too short for listed fidelities: with them alone a gate would be worse than listed. So a gate relaxes
    by T1, dephases by T2 as far as its fidelity allows, and what is then left of its error is depolarising. Readout
    errs equally for 0 and 1, since one number is listed.
    """
    single, double = (time / 1000 for time in chip.gate_times)
    qubits = {}
    for number, facts in chip.qubits.items():
        # As much dephasing as the listed fidelity allows, and depolarising for the rest of the error.
        damping = _fitting([_damping(facts, single)], facts.gate_fidelity)
        # A readout fidelity is one number, so both errors get it.
        error = 1 - facts.readout_fidelity
        depolarising = depolarising_from_fidelity(facts.gate_fidelity, damping)
        qubits[number] = QubitNoise(depolarising, damping[0], ReadoutError(error, error))
    edges = {}
    for (first, second), fidelity in chip.edges.items():
        both = _fitting([_damping(chip.qubits[one], double) for one in (first, second)], fidelity)
        edges[first, second] = EdgeNoise(depolarising_from_fidelity(fidelity, both), (both[0], both[1]))
    return NoiseModel.from_mappings(qubits, edges)


def _lives(fidelity: float, dimension: int) -> bool:
    """Whether a fidelity is better than that of noise; dead parts are listed with 0."""
    if fidelity > 1:
        raise DeviceError(f"The cloud lists the fidelity {fidelity}, but a fidelity is at most 1.")
    return fidelity > 1 / dimension


def _damping(facts: QubitFacts, microseconds: float) -> Damping:
    return Damping.from_times(t1=facts.t1, t2=min(facts.t2, 2 * facts.t1), duration=microseconds)


def _fitting(damping: list[Damping], fidelity: float) -> list[Damping]:
    """Return the same with as much of the dephasing as leaves a gate its fidelity."""
    if _fidelity(damping) >= fidelity:
        return damping
    # Fidelity falls as the share grows, so halving finds it; 50 halvings exhaust a float.
    low, high = 0.0, 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if _fidelity(_dephased(damping, middle)) >= fidelity else (low, middle)
    return _dephased(damping, low)


def _dephased(damping: list[Damping], share: float) -> list[Damping]:
    """Return the damping with this share of the dephasing rate."""
    return [Damping(one.amplitude, 1 - (1 - one.phase) ** share) for one in damping]


def _fidelity(damping: list[Damping]) -> float:
    """Average fidelity of a gate that suffers nothing else, from the trace of its Pauli transfer matrix.

    Source: as `depolarising_from_fidelity`.
    """
    # F = (tr / d + 1) / (d + 1) with tr the trace of the Pauli transfer matrix. Of one damped qubit it is
    # 1 + 2 sqrt((1 - a)(1 - p)) + (1 - a): I, then X and Y, then Z; of two qubits it is the product.
    trace = math.prod(2 - one.amplitude + 2 * math.sqrt((1 - one.amplitude) * (1 - one.phase)) for one in damping)
    dimension = 2 ** len(damping)
    return float((trace / dimension + 1) / (dimension + 1))

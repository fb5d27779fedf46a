"""Circuits in what superconducting chips do: pulses on one qubit, rotations about Z for free, and CZ."""

from __future__ import annotations

import cmath
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from qpeft.circuits.binding import bind
from qpeft.circuits.circuit import Circuit, Operation
from qpeft.circuits.decomposition import bound_angle, to_controlled_z
from qpeft.circuits.gates import GATES, ComplexMatrix


@dataclass(frozen=True)
class Turn:
    """A gate on one qubit as the chip makes it: RZ(before), one pulse that is RY(angle), RZ(after). Radians.

    The RZ are changes of the phase of later pulses: they take no time and make no error. Without an angle there is no
    pulse. Angles are from 0 to pi, since a pulse turns the short way round.
    """

    qubit: int
    before: float
    angle: float
    after: float


@dataclass(frozen=True)
class ControlledZ:
    """CZ on a coupler."""

    qubits: tuple[int, int]


NOTHING = 1e-9
"""A pulse of a smaller angle is not made."""

NativeGate: TypeAlias = Turn | ControlledZ


def to_native(operations: Iterable[Operation], *, optimise: bool) -> list[NativeGate]:
    """Gates that do the same up to a global phase, in time order.

    Args:
        operations: bound.
        optimise: whether gates that follow each other on one qubit become one pulse, as the cloud's own optimisation
            does; without it every gate is made as it stands.
    """
    native: list[NativeGate] = []
    waiting: dict[int, ComplexMatrix] = {}
    for operation in to_controlled_z(operations):
        if operation.gate_name == "CZ":
            native += [_turn(qubit, waiting.pop(qubit)) for qubit in operation.qubits if qubit in waiting]
            native.append(ControlledZ((operation.qubits[0], operation.qubits[1])))
            continue
        (qubit,), matrix = operation.qubits, GATES[operation.gate_name].unitary(bound_angle(operation))
        if optimise:
            waiting[qubit] = matrix @ waiting.get(qubit, np.eye(2, dtype=complex))
        else:
            native.append(_turn(qubit, matrix))
    return native + [_turn(qubit, matrix) for qubit, matrix in waiting.items()]


def gate_counts(circuit: Circuit) -> tuple[dict[int, int], dict[tuple[int, int], int]]:
    """Pulses on every qubit and CZ on every pair, smaller qubit first, that a circuit costs at unspecial angles.

    Gates that follow each other on one qubit are one pulse.
    """
    # Inputs and weights apart from each other, so that no two rotations in a row cancel.
    inputs = [0.7 + 0.1 * index for index in range(circuit.num_inputs)]
    weights = [0.43 + 0.017 * index for index in range(circuit.num_weights)]
    native = to_native(bind(circuit, inputs, weights).operations, optimise=True)
    pulses = Counter(gate.qubit for gate in native if isinstance(gate, Turn) and gate.angle)
    flips = Counter((min(gate.qubits), max(gate.qubits)) for gate in native if isinstance(gate, ControlledZ))
    return {qubit: pulses[qubit] for qubit in range(circuit.num_qubits)}, dict(flips)


def _turn(qubit: int, matrix: ComplexMatrix) -> Turn:
    """ZYZ angles of a unitary: exp(i phase) RZ(after) RY(angle) RZ(before)."""
    angle = 2 * np.arctan2(abs(matrix[1, 0]), abs(matrix[0, 0]))
    # With determinant 1 the phases of the entries are half of after + before and after - before. The phase of an entry
    # that is zero means nothing: only the other combination acts.
    unit = matrix / np.sqrt(np.linalg.det(matrix))
    total = 2 * cmath.phase(unit[1, 1]) if abs(unit[1, 1]) > NOTHING else 0.0
    difference = 2 * cmath.phase(unit[1, 0]) if abs(unit[1, 0]) > NOTHING else 0.0
    return Turn(qubit, (total - difference) / 2, float(angle) if angle > NOTHING else 0.0, (total + difference) / 2)

"""Circuits in what superconducting chips do: pulses on one qubit, rotations about Z for free, and CZ."""

from __future__ import annotations

import cmath
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from qpeft.circuits.circuit import Circuit, Input, Operation, bind
from qpeft.circuits.decomposition import bound_angle, to_controlled_z
from qpeft.circuits.gates import GATES, ComplexMatrix


@dataclass(frozen=True)
class Pulse:
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
FREE_GATES = frozenset({"RZ"})
"""Gates that take no time and make no error: RZ only changes the phase of later pulses."""

NativeGate: TypeAlias = Pulse | ControlledZ
RealArray: TypeAlias = npt.NDArray[np.float64]


def to_native(operations: Iterable[Operation], *, optimise: bool) -> list[NativeGate]:
    """Return gates that do the same up to a global phase, in time order.

    Args:
        operations: bound.
        optimise: whether gates that follow each other on one qubit become one pulse, as the cloud's own optimisation
            does; without it every gate is made as it stands.
    """
    native: list[NativeGate] = []
    waiting: dict[int, ComplexMatrix] = {}
    for operation in to_controlled_z(operations):
        if operation.gate_name == "CZ":
            # What waits on its qubits comes first; other qubits go on collecting.
            native += [_pulse(qubit, waiting.pop(qubit)) for qubit in operation.qubits if qubit in waiting]
            native.append(ControlledZ((operation.qubits[0], operation.qubits[1])))
            continue
        (qubit,), matrix = operation.qubits, GATES[operation.gate_name].unitary(bound_angle(operation))
        if optimise:
            waiting[qubit] = matrix @ waiting.get(qubit, np.eye(2, dtype=complex))
        else:
            native.append(_pulse(qubit, matrix))
    return native + [_pulse(qubit, matrix) for qubit, matrix in waiting.items()]


def gate_counts(circuit: Circuit) -> tuple[dict[int, int], dict[tuple[int, int], int]]:
    """Return pulses on every qubit and CZ on every pair, smaller qubit first, that a circuit costs at unspecial angles.

    Gates that follow each other on one qubit are one pulse.
    """
    # Inputs and weights apart from each other, so that no two rotations in a row cancel.
    inputs = [0.7 + 0.1 * index for index in range(circuit.num_inputs)]
    weights = [0.43 + 0.017 * index for index in range(circuit.num_weights)]
    native = to_native(bind(circuit, inputs, weights).operations, optimise=True)
    pulses = Counter(gate.qubit for gate in native if isinstance(gate, Pulse) and gate.angle)
    couplings = Counter((min(gate.qubits), max(gate.qubits)) for gate in native if isinstance(gate, ControlledZ))
    return {qubit: pulses[qubit] for qubit in range(circuit.num_qubits)}, dict(couplings)


def _pulse(qubit: int, matrix: ComplexMatrix) -> Pulse:
    """Return the ZYZ angles of a unitary: exp(i phase) RZ(after) RY(angle) RZ(before)."""
    angle = 2 * np.arctan2(abs(matrix[1, 0]), abs(matrix[0, 0]))
    # With determinant 1 the phases of the entries are half of after + before and after - before. The phase of an entry
    # that is zero means nothing: only the other combination acts.
    unit = matrix / np.sqrt(np.linalg.det(matrix))
    total = 2 * cmath.phase(unit[1, 1]) if abs(unit[1, 1]) > NOTHING else 0.0
    difference = 2 * cmath.phase(unit[1, 0]) if abs(unit[1, 0]) > NOTHING else 0.0
    return Pulse(qubit, (total - difference) / 2, float(angle) if angle > NOTHING else 0.0, (total + difference) / 2)


def native_circuit(
    circuit: Circuit, inputs: Sequence[Sequence[float]], weights: Sequence[float]
) -> tuple[Circuit, RealArray]:
    """Return one circuit of RZ, RY and CZ for all rows of inputs, and the angles of every row.

    Each RY is a pulse, each RZ is free. Between two CZ a qubit has at most one pulse, with one RZ before it: what is
    left of a rotation about Z after a pulse commutes with CZ and joins the next one. An RZ that no pulse follows is
    left out unless X or Y of its qubit is measured, as is one before the first pulse, where the qubit is still |0>.

    Args:
        circuit: with inputs and weights.
        inputs: one row per evaluation, at least one; radians.
        weights: shared by all rows; radians.

    Returns:
        A circuit without weights, with the observables of `circuit`; its inputs, (rows, num_inputs), radians. A pulse
        that some rows do not need, because they turn by exactly 0 there, stays in the circuit; one that no row needs
        does not.

    Raises: CircuitError if there are too few or too many angles.
    """
    rows = [to_native(bind(circuit, row, weights).operations, optimise=True) for row in inputs]
    operations: list[Operation] = []
    columns: list[RealArray] = []
    # Rotations about Z after a qubit's last pulse, one per row, that wait for its next one.
    phases: dict[int, RealArray] = {}

    def rotate(name: str, qubit: int, angles: RealArray) -> None:
        operations.append(Operation(name, (qubit,), Input(len(columns))))
        columns.append(angles)

    # The rows have the same gates in the same order, since these follow from the circuit and not from its angles.
    for gates in zip(*rows, strict=True):
        first = gates[0]
        if isinstance(first, ControlledZ):
            operations.append(Operation("CZ", first.qubits))
            continue
        pulses = [(gate.before, gate.angle, gate.after) for gate in gates if isinstance(gate, Pulse)]
        (before, angles, after), qubit = np.array(pulses).T, first.qubit
        if angles.any():
            if qubit in phases:  # before the first pulse the qubit is |0>, which no RZ changes
                rotate("RZ", qubit, phases[qubit] + before)
            rotate("RY", qubit, angles)
            phases[qubit] = after
        elif qubit in phases:
            phases[qubit] = phases[qubit] + before + after
    for qubit, phase in sorted(phases.items()):
        # Nothing but X and Y sees a phase at the end.
        if any(observable[qubit] in "XY" for observable in circuit.observables):
            rotate("RZ", qubit, phase)
    angles = np.stack(columns, axis=1) if columns else np.zeros((len(rows), 0))
    return Circuit(circuit.num_qubits, tuple(operations), circuit.observables), angles

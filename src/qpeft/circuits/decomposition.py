"""Bound operations written with other gates of the table, equal up to a global phase: for machines that lack them.

Every gate comes apart into RZ, RY and CZ: gates on two qubits by the parts in their row of the table, step by step, and
gates on one qubit by the angles of their matrix.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from functools import cache, lru_cache

import numpy as np

from qpeft.circuits.circuit import Circuit, Operation
from qpeft.circuits.gates import GATES
from qpeft.errors import CircuitError

ELEMENTARY = ("RZ", "RY", "CZ")
NEGLIGIBLE = 1e-9


def decompose(operation: Operation) -> tuple[Operation, ...]:
    """Return a bound operation as others that are nearer to RZ, RY and CZ, in time order.

    Raises: CircuitError if the angle is no number, or the gate cannot be taken apart.
    """
    gate, angle = operation.gate, bound_angle(operation)
    if gate.name in ELEMENTARY or (gate.num_qubits > 1 and not gate.parts):
        raise CircuitError(f"{gate.name} cannot be taken apart; its row in circuits/gates.py names no parts.")
    if gate.parts:
        parts = []
        for part in gate.parts:
            qubits = tuple([operation.qubits[place] for place in part.qubits])
            if part.times is None or angle is None:
                parts.append(_fixed(part.gate_name, qubits, part.angle))
            else:
                parts.append(Operation(part.gate_name, qubits, part.times * angle))
        return tuple(parts)
    # ZYZ angles of a unitary: exp(i phase) RZ(after) RY(turn) RZ(before). With determinant 1 the phases of the entries
    # are half of after + before and after - before; that of an entry which is zero means nothing.
    matrix = gate.unitary(angle)
    unit = matrix / np.sqrt(np.linalg.det(matrix))
    total = 2 * cmath.phase(unit[1, 1]) if abs(unit[1, 1]) > NEGLIGIBLE else 0.0
    difference = 2 * cmath.phase(unit[1, 0]) if abs(unit[1, 0]) > NEGLIGIBLE else 0.0
    turn = 2 * math.atan2(abs(unit[1, 0]), abs(unit[0, 0]))
    angles = {"before": (total - difference) / 2, "turn": turn, "after": (total + difference) / 2}
    return tuple(
        Operation("RY" if name == "turn" else "RZ", operation.qubits, value)
        for name, value in angles.items()
        if abs(value) > NEGLIGIBLE
    )


# Most parts have no angle that varies: checking each anew would take most of the time.
_fixed = lru_cache(maxsize=4096)(Operation)


def rewrite(circuit: Circuit, gate_names: Collection[str]) -> Circuit:
    """Return a bound circuit with the gates of these names alone; itself if it has no others.

    Raises: CircuitError if an angle is no number, or the names lack RZ, RY or CZ where one of them is needed.
    """
    if all(operation.gate_name in gate_names for operation in circuit.operations):
        return circuit
    return replace(circuit, operations=tuple(_rewritten(circuit.operations, gate_names)))


def to_controlled_z(operations: Iterable[Operation]) -> Iterator[Operation]:
    """Yield the same in gates on one qubit and CZ. Raises: CircuitError if an angle is no number."""
    return _rewritten(operations, {name for name, gate in GATES.items() if gate.num_qubits == 1} | {"CZ"})


def _rewritten(operations: Iterable[Operation], gate_names: Collection[str]) -> Iterator[Operation]:
    for operation in operations:
        if operation.gate_name in gate_names:
            yield operation
        else:
            # Parts come apart in turn, until none is left that is not among the names.
            yield from _rewritten(decompose(operation), gate_names)


def bound_angle(operation: Operation) -> float | None:
    """Return the angle in radians, None for a gate without one. Raises: CircuitError if it is an input or a weight."""
    if operation.angle is None or isinstance(operation.angle, (int, float)):
        return operation.angle
    raise CircuitError(f"{operation.gate_name} has the angle {operation.angle}; bind inputs and weights first.")


def inverted(operations: Iterable[Operation]) -> tuple[Operation, ...]:
    """Return bound operations that undo these up to a global phase, the last first.

    Rotations turn back; a fixed gate is undone by another one of the table, most of them by themselves, or else by its
    parts. Raises: CircuitError if an angle is no number, or nothing undoes a gate.
    """
    found: list[Operation] = []
    for operation in reversed(tuple(operations)):
        angle = bound_angle(operation)
        if angle is not None:
            found.append(replace(operation, angle=-angle))
        elif (name := _undone_by(operation.gate_name)) is not None:
            found.append(replace(operation, gate_name=name))
        else:
            found += inverted(decompose(operation))
    return tuple(found)


@cache
def _undone_by(gate_name: str) -> str | None:
    wanted = GATES[gate_name].unitary().conj().T
    for name, gate in GATES.items():
        # |Tr(A^H B)| is the dimension exactly if the two differ by a phase alone.
        is_like = gate.matrix is not None and gate.matrix.shape == wanted.shape
        if is_like and math.isclose(abs(np.vdot(wanted, gate.unitary())), len(wanted), rel_tol=1e-9):
            return name
    return None

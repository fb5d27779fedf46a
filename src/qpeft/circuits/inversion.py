"""The inverse of bound operations, gate by gate from the gate table, equal up to a global phase."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from functools import cache

import numpy as np

from qpeft.circuits.circuit import Operation
from qpeft.circuits.decomposition import bound_angle
from qpeft.circuits.gates import GATES
from qpeft.errors import CircuitError

ROTATIONS: dict[str, tuple[str, float]] = {"SX": ("RX", -math.pi / 2)}
"""Fixed gates that no fixed gate undoes, and the rotation that does: its name and its angle, radians."""


def inverted(operations: Iterable[Operation]) -> tuple[Operation, ...]:
    """Operations that undo these, the last first. Raises: as `inverse`."""
    return tuple(inverse(operation) for operation in reversed(tuple(operations)))


def inverse(operation: Operation) -> Operation:
    """The one operation that undoes this one, up to a global phase.

    Rotations turn back; a fixed gate is undone by another one of the table, most of them by themselves.
    Raises: CircuitError if the angle is no number, or the table has no inverse of the gate.
    """
    angle = bound_angle(operation)
    if angle is not None:
        return replace(operation, angle=-angle)
    if operation.gate_name in ROTATIONS:
        name, angle = ROTATIONS[operation.gate_name]
        return Operation(name, operation.qubits, angle)
    return replace(operation, gate_name=_inverse_name(operation.gate_name))


@cache
def _inverse_name(gate_name: str) -> str:
    wanted = GATES[gate_name].unitary().conj().T
    for name, gate in GATES.items():
        if gate.matrix is None or gate.matrix.shape != wanted.shape:
            continue
        # |Tr(A^H B)| is the dimension exactly if the two differ by a phase alone.
        if math.isclose(abs(np.vdot(wanted, gate.matrix)), len(wanted), rel_tol=1e-9):
            return name
    raise CircuitError(f"No gate of the table undoes {gate_name}; add a row to circuits.inversion.ROTATIONS.")

"""Gates on two qubits written with fewer kinds of gates, equal up to a global phase: for machines that lack them.

Every rule leads towards CZ and gates on one qubit, in which `to_controlled_z` ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache

import numpy as np

from qpeft.circuits.circuit import Operation
from qpeft.circuits.gates import GATES
from qpeft.errors import CircuitError

Rule = Callable[[int, int, float], tuple[Operation, ...]]
"""First qubit, second qubit and angle in radians (0 for a gate without one) to operations in time order."""


def decompose(operation: Operation) -> tuple[Operation, ...]:
    """One step towards CZ of a bound operation on two qubits.

    Raises: CircuitError if the angle is no number, or there is no rule for the gate.
    """
    if operation.gate_name not in RULES:
        raise CircuitError(f"There is no rule that takes {operation.gate_name} apart; rules: {', '.join(RULES)}.")
    angle = bound_angle(operation)
    first, second = operation.qubits
    return RULES[operation.gate_name](first, second, 0.0 if angle is None else angle)


def to_controlled_z(operations: Iterable[Operation]) -> Iterator[Operation]:
    """The same in gates on one qubit and CZ. Raises: CircuitError if an angle is no number."""
    for operation in operations:
        if operation.gate.num_qubits == 1 or operation.gate_name == "CZ":
            yield operation
        else:
            yield from to_controlled_z(decompose(operation))


def bound_angle(operation: Operation) -> float | None:
    """The angle in radians, None for a gate without one. Raises: CircuitError if it is an input or a weight."""
    if operation.angle is None or isinstance(operation.angle, (int, float)):
        return operation.angle
    raise CircuitError(f"{operation.gate_name} has the angle {operation.angle}; bind inputs and weights first.")


def _cnot(control: int, target: int, _angle: float) -> tuple[Operation, ...]:
    return Operation("H", (target,)), Operation("CZ", (control, target)), Operation("H", (target,))


def _cy(control: int, target: int, _angle: float) -> tuple[Operation, ...]:
    return Operation("SDG", (target,)), Operation("CNOT", (control, target)), Operation("S", (target,))


def _swap(first: int, second: int, _angle: float) -> tuple[Operation, ...]:
    there, back = Operation("CNOT", (first, second)), Operation("CNOT", (second, first))
    return there, back, there


def _controlled_rotation(axis: str, flip: str) -> Rule:
    """`flip` on the target turns the sense of the rotation, so the halves add up where the control is 1."""

    def rule(control: int, target: int, angle: float) -> tuple[Operation, ...]:
        flipped = Operation(flip, (control, target))
        return Operation(axis, (target,), angle / 2), flipped, Operation(axis, (target,), -angle / 2), flipped

    return rule


def _cphase(control: int, target: int, angle: float) -> tuple[Operation, ...]:
    return Operation("PHASE", (control,), angle / 2), Operation("CRZ", (control, target), angle)


def _rzz(first: int, second: int, angle: float) -> tuple[Operation, ...]:
    flip = Operation("CNOT", (first, second))
    return flip, Operation("RZ", (second,), angle), flip


def _rxx(first: int, second: int, angle: float) -> tuple[Operation, ...]:
    turns = Operation("H", (first,)), Operation("H", (second,))
    return *turns, Operation("RZZ", (first, second), angle), *turns


def _ryy(first: int, second: int, angle: float) -> tuple[Operation, ...]:
    turns = [Operation("RX", (qubit,), math.pi / 2) for qubit in (first, second)]
    back = [Operation("RX", (qubit,), -math.pi / 2) for qubit in (first, second)]
    return *turns, Operation("RZZ", (first, second), angle), *back


RULES: dict[str, Rule] = {
    "CNOT": _cnot,
    "CY": _cy,
    "SWAP": _swap,
    "CRX": _controlled_rotation("RX", "CZ"),
    "CRY": _controlled_rotation("RY", "CZ"),
    "CRZ": _controlled_rotation("RZ", "CNOT"),
    "CPHASE": _cphase,
    "RXX": _rxx,
    "RYY": _ryy,
    "RZZ": _rzz,
}


# The inverse of bound operations, gate by gate from the gate table, equal up to a global phase.


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

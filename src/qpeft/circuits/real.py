"""Families of circuits without inputs whose weights make a real state, or an orthogonal matrix: RY, CZ and CNOT.

Weights are numbered as their gates stand in the circuit.
"""

from __future__ import annotations

from qpeft.circuits.circuit import Circuit, Operation, Weight
from qpeft.errors import CircuitError


def cnot_chain(num_qubits: int, depth: int) -> Circuit:
    """Per layer: RY on every qubit, then CNOT(q, q+1) for q = 0 .. num_qubits - 2. num_qubits * depth weights.

    Raises: CircuitError if num_qubits or depth is below 1.
    """
    _check(num_qubits, depth)
    chain = [Operation("CNOT", (qubit, qubit + 1)) for qubit in range(num_qubits - 1)]
    operations: list[Operation] = []
    for layer in range(depth):
        operations += _rotations(range(num_qubits), first_weight=layer * num_qubits) + chain
    return Circuit(num_qubits, tuple(operations))


def cz_ring(num_qubits: int, depth: int) -> Circuit:
    """RY on every qubit; per layer CZ(q, q+1) around the ring, then RY on every qubit. num_qubits (depth + 1) weights.

    Raises: CircuitError if num_qubits or depth is below 1.
    """
    _check(num_qubits, depth)
    # Two qubits have one pair, and CZ twice on it would be nothing at all.
    pairs = [(0, 1)] if num_qubits == 2 else [(q, (q + 1) % num_qubits) for q in range(num_qubits) if num_qubits > 1]
    operations = _rotations(range(num_qubits), first_weight=0)
    for layer in range(1, depth + 1):
        operations += [Operation("CZ", pair) for pair in pairs]
        operations += _rotations(range(num_qubits), first_weight=layer * num_qubits)
    return Circuit(num_qubits, tuple(operations))


def two_design(num_qubits: int, depth: int) -> Circuit:
    """RY on every qubit; per layer, on the pairs (0, 1), (2, 3), ... and then on (1, 2), (3, 4), ...: CZ, RY on both.

    The simplified two-design of Cerezo et al. (arXiv:2001.00550): (2 depth + 1) num_qubits - 2 depth weights.
    Raises: CircuitError if num_qubits or depth is below 1.
    """
    _check(num_qubits, depth)
    operations = _rotations(range(num_qubits), first_weight=0)
    next_weight = num_qubits
    for _ in range(depth):
        for first in (0, 1):
            paired = range(first, num_qubits - (num_qubits - first) % 2)
            operations += [Operation("CZ", (qubit, qubit + 1)) for qubit in paired[::2]]
            operations += _rotations(paired, first_weight=next_weight)
            next_weight += len(paired)
    return Circuit(num_qubits, tuple(operations))


def _rotations(qubits: range, *, first_weight: int) -> list[Operation]:
    return [Operation("RY", (qubit,), Weight(first_weight + place)) for place, qubit in enumerate(qubits)]


def _check(num_qubits: int, depth: int) -> None:
    if num_qubits < 1 or depth < 1:
        raise CircuitError(f"num_qubits and depth must be at least 1; got {num_qubits} and {depth}.")

"""Ready-made families of circuits, one function each; all measure Z of every qubit.

Data enter as RY rotations, one input per qubit, in every layer (re-uploading) unless `reupload=False`.
Weights are numbered as their gates stand in the circuit; within a layer of gates, qubit 0 (or control 0) first.
One qubit has no ring. Two qubits have one CZ (the gate is symmetric), and both CRZ or both CNOT.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

from qpeft.circuits.circuit import Circuit, Input, Operation, Weight
from qpeft.errors import CircuitError


def ring_crz(num_qubits: int, depth: int = 1, *, reupload: bool = True) -> Circuit:
    """Per layer: RY(input), CRZ(q, q+1), RY, CRZ(q, q-1), RY. 4 num_qubits weights a layer.

    The circuit of QTHA as published (arXiv:2503.12790): circuit 13 of Sim et al. (arXiv:1905.10876) with its first RY
    layer turned into data encoding and a final RY layer added.
    Raises: CircuitError if num_qubits or depth is below 1.
    """
    layers = _Layers(num_qubits, depth)
    for layer in range(depth):
        layers.encode(unless=layer > 0 and not reupload)
        layers.weighted_ring("CRZ", step=+1)
        layers.weighted("RY")
        layers.weighted_ring("CRZ", step=-1)
        layers.weighted("RY")
    return layers.circuit()


def ring_cz(num_qubits: int, depth: int = 1, *, reupload: bool = True) -> Circuit:
    """Per layer: RY(input), RY, CZ(q, q+1), RY. 2 num_qubits weights a layer.

    num_qubits CZ where `ring_crz` has twice as many CRZ, each of which costs two CZ on a superconducting chip.
    Raises: CircuitError if num_qubits or depth is below 1.
    """
    layers = _Layers(num_qubits, depth)
    for layer in range(depth):
        layers.encode(unless=layer > 0 and not reupload)
        layers.weighted("RY")
        layers.fixed_ring("CZ")
        layers.weighted("RY")
    return layers.circuit()


def ring_cnot(num_qubits: int, depth: int = 1, *, reupload: bool = True) -> Circuit:
    """Per layer: RY(input), RY, RZ, CNOT(q, q+1); at the end one RY on every qubit.

    2 num_qubits weights a layer, and num_qubits more.
    The closing RY is there because an RZ that meets only CNOTs and a Z measurement has no gradient.
    Raises: CircuitError if num_qubits or depth is below 1.
    """
    layers = _Layers(num_qubits, depth)
    for layer in range(depth):
        layers.encode(unless=layer > 0 and not reupload)
        layers.weighted("RY")
        layers.weighted("RZ")
        layers.fixed_ring("CNOT")
    layers.weighted("RY")
    return layers.circuit()


ANSATZE: dict[str, Callable[..., Circuit]] = {"ring_crz": ring_crz, "ring_cz": ring_cz, "ring_cnot": ring_cnot}


class _Layers:
    """Collects operations layer by layer and numbers the weights on the way."""

    def __init__(self, num_qubits: int, depth: int) -> None:
        if num_qubits < 1 or depth < 1:
            raise CircuitError(f"num_qubits and depth must be at least 1; got {num_qubits} and {depth}.")
        self._num_qubits = num_qubits
        self._operations: list[Operation] = []
        self._next_weight = count()

    def encode(self, *, unless: bool) -> None:
        if not unless:
            self._operations += [Operation("RY", (qubit,), Input(qubit)) for qubit in range(self._num_qubits)]

    def weighted(self, gate: str) -> None:
        self._operations += [Operation(gate, (qubit,), self._weight()) for qubit in range(self._num_qubits)]

    def weighted_ring(self, gate: str, *, step: int) -> None:
        self._operations += [Operation(gate, pair, self._weight()) for pair in self._ring(step)]

    def fixed_ring(self, gate: str) -> None:
        pairs = list(self._ring(+1))
        if gate == "CZ" and self._num_qubits == 2:
            pairs = pairs[:1]
        self._operations += [Operation(gate, pair) for pair in pairs]

    def circuit(self) -> Circuit:
        return Circuit(self._num_qubits, tuple(self._operations))

    def _weight(self) -> Weight:
        return Weight(next(self._next_weight))

    def _ring(self, step: int) -> Iterator[tuple[int, int]]:
        if self._num_qubits > 1:
            for qubit in range(self._num_qubits):
                yield qubit, (qubit + step) % self._num_qubits


# Families of circuits without inputs whose weights make a real state, or an orthogonal matrix: RY, CZ and CNOT.
#
# Weights are numbered as their gates stand in the circuit.


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

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

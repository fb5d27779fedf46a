"""Ready-made families of circuits, one function each; all measure Z of every qubit.

Weights are numbered as their gates stand in the circuit; within a layer of gates, qubit 0 (or control 0) first.
One qubit has no ring. Two qubits have one CZ (the gate is symmetric), and both CRZ or both CNOT.
Every function raises CircuitError if num_qubits or depth is below 1.

The first three take data in as RY rotations, one input per qubit, in every layer unless `reupload=False`. The others
have no inputs: their weights make a real state, or an orthogonal matrix, of RY, CZ and CNOT.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import entry_points
from itertools import count

from qpeft.circuits.circuit import Circuit, Input, Operation, Weight
from qpeft.errors import CircuitError


def ring_crz(num_qubits: int, depth: int = 1, *, reupload: bool = True) -> Circuit:
    """Return, per layer: RY(input), CRZ(q, q+1), RY, CRZ(q, q-1), RY. 4 num_qubits weights a layer.

    The circuit of QTHA as published (arXiv:2503.12790): circuit 13 of Sim et al. (arXiv:1905.10876) with its first RY
    layer turned into data encoding and a final RY layer added.

    Args:
        num_qubits: one input each.
        depth: layers.
        reupload: whether inputs enter in every layer, or in the first alone.
    """
    _check(num_qubits, depth)
    qubits, weights, operations = range(num_qubits), count(), list[Operation]()
    for layer in range(depth):
        operations += _encoding(num_qubits, layer, reupload=reupload)
        operations += _weighted("CRZ", _ring(num_qubits, step=+1), weights)
        operations += _weighted("RY", zip(qubits, strict=True), weights)
        # Back round the ring, so that every pair is controlled from both sides.
        operations += _weighted("CRZ", _ring(num_qubits, step=-1), weights)
        operations += _weighted("RY", zip(qubits, strict=True), weights)
    return Circuit(num_qubits, tuple(operations))


def ring_cz(num_qubits: int, depth: int = 1, *, reupload: bool = True) -> Circuit:
    """Return, per layer: RY(input), RY, CZ(q, q+1), RY. 2 num_qubits weights a layer.

    num_qubits CZ where `ring_crz` has twice as many CRZ, each of which costs two CZ on a superconducting chip.

    Args:
        num_qubits, depth, reupload: as in `ring_crz`.
    """
    _check(num_qubits, depth)
    qubits, weights, operations = range(num_qubits), count(), list[Operation]()
    for layer in range(depth):
        operations += _encoding(num_qubits, layer, reupload=reupload)
        operations += _weighted("RY", zip(qubits, strict=True), weights)
        operations += _ring_of_cz(num_qubits)
        operations += _weighted("RY", zip(qubits, strict=True), weights)
    return Circuit(num_qubits, tuple(operations))


def ring_cnot(num_qubits: int, depth: int = 1, *, reupload: bool = True) -> Circuit:
    """Return, per layer: RY(input), RY, RZ, CNOT(q, q+1); at the end one RY on every qubit.

    2 num_qubits weights a layer, and num_qubits more.

    Args:
        num_qubits, depth, reupload: as in `ring_crz`.
    """
    _check(num_qubits, depth)
    qubits, weights, operations = range(num_qubits), count(), list[Operation]()
    for layer in range(depth):
        operations += _encoding(num_qubits, layer, reupload=reupload)
        operations += _weighted("RY", zip(qubits, strict=True), weights)
        operations += _weighted("RZ", zip(qubits, strict=True), weights)
        operations += [Operation("CNOT", pair) for pair in _ring(num_qubits, step=+1)]
    # An RZ that meets only CNOTs and a Z measurement has no gradient.
    operations += _weighted("RY", zip(qubits, strict=True), weights)
    return Circuit(num_qubits, tuple(operations))


ANSATZE: dict[str, Callable[..., Circuit]] = {"ring_crz": ring_crz, "ring_cz": ring_cz, "ring_cnot": ring_cnot}


def find_ansatz(name: str) -> Callable[..., Circuit]:
    """Return the function of this name in `ANSATZE`, or of an entry point `qpeft.ansatze` of an installed package.

    Raises: CircuitError, naming the nearest, if there is none.
    """
    if name in ANSATZE:
        return ANSATZE[name]
    others = {entry.name: entry for entry in entry_points(group="qpeft.ansatze")}
    if name in others:
        build: Callable[..., Circuit] = others[name].load()
        return build
    known = [*ANSATZE, *others]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}."
    raise CircuitError(f"There is no ansatz {name!r}. {hint}")


def cnot_chain(num_qubits: int, depth: int) -> Circuit:
    """Return, per layer: RY on every qubit, then CNOT(q, q+1) for q = 0 .. num_qubits - 2. num_qubits depth weights."""
    _check(num_qubits, depth)
    weights, operations = count(), list[Operation]()
    for _ in range(depth):
        operations += _weighted("RY", zip(range(num_qubits), strict=True), weights)
        operations += [Operation("CNOT", (qubit, qubit + 1)) for qubit in range(num_qubits - 1)]
    return Circuit(num_qubits, tuple(operations))


def cz_ring(num_qubits: int, depth: int) -> Circuit:
    """Return RY on every qubit; then, per layer, CZ(q, q+1) and RY on every qubit. num_qubits (depth + 1) weights."""
    _check(num_qubits, depth)
    weights = count()
    operations = list(_weighted("RY", zip(range(num_qubits), strict=True), weights))
    for _ in range(depth):
        operations += _ring_of_cz(num_qubits)
        operations += _weighted("RY", zip(range(num_qubits), strict=True), weights)
    return Circuit(num_qubits, tuple(operations))


def two_design(num_qubits: int, depth: int) -> Circuit:
    """Return RY on every qubit; per layer, on the pairs (0, 1), (2, 3), ..., then on (1, 2), ...: CZ, and RY on both.

    The simplified two-design of Cerezo et al. (arXiv:2001.00550): (2 depth + 1) num_qubits - 2 depth weights.
    """
    _check(num_qubits, depth)
    weights = count()
    operations = list(_weighted("RY", zip(range(num_qubits), strict=True), weights))
    for _ in range(depth):
        for first in (0, 1):
            # A last qubit without a partner waits.
            paired = range(first, num_qubits - (num_qubits - first) % 2)
            operations += [Operation("CZ", (qubit, qubit + 1)) for qubit in paired[::2]]
            operations += _weighted("RY", zip(paired, strict=True), weights)
    return Circuit(num_qubits, tuple(operations))


def _check(num_qubits: int, depth: int) -> None:
    if num_qubits < 1 or depth < 1:
        raise CircuitError(f"num_qubits and depth must be at least 1; got {num_qubits} and {depth}.")


def _encoding(num_qubits: int, layer: int, *, reupload: bool) -> list[Operation]:
    return [Operation("RY", (qubit,), Input(qubit)) for qubit in range(num_qubits)] if layer == 0 or reupload else []


def _weighted(gate: str, places: Iterable[tuple[int, ...]], weights: Iterator[int]) -> Iterator[Operation]:
    return (Operation(gate, qubits, Weight(next(weights))) for qubits in places)


def _ring(num_qubits: int, *, step: int) -> list[tuple[int, int]]:
    return [(qubit, (qubit + step) % num_qubits) for qubit in range(num_qubits) if num_qubits > 1]


def _ring_of_cz(num_qubits: int) -> list[Operation]:
    # CZ is symmetric: twice on the one pair of two qubits it would be nothing at all.
    pairs = _ring(num_qubits, step=+1)
    return [Operation("CZ", pair) for pair in (pairs[:1] if num_qubits == 2 else pairs)]

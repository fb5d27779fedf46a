"""Real circuits as few steps on vectors: rotations of several qubits at once, and renamings of basis states.

A layer of RY is a Kronecker product; its qubits are cut into groups of neighbours, each a small matrix. Fixed gates in
a row are one gather that exchanges amplitudes, and their signs. Matrices of one size are all made together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qpeft.circuits import Angle, Circuit, Input, Operation, Weight
from qpeft.errors import SimulationError

MAX_GROUP = 5
"""Qubits of one matrix: g qubits cost 2**g multiply-adds per amplitude in one matrix product."""

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Renaming:
    """Amplitude i is `signs[i]` times the one that was at `gather[i]`; `scatter` leads back. None: all in place."""

    gather: Tensor | None
    scatter: Tensor | None
    signs: Tensor

    def apply(self, vectors: Tensor) -> Tensor:
        """Vectors (..., size) after the step."""
        return (vectors if self.gather is None else vectors.index_select(-1, self.gather)) * self.signs

    def undo(self, vectors: Tensor) -> Tensor:
        """Vectors (..., size) before the step."""
        vectors = vectors * self.signs
        return vectors if self.scatter is None else vectors.index_select(-1, self.scatter)


@dataclass(frozen=True)
class FusedRotation:
    """RY of neighbouring qubits: matrix `row` of table number `table`, on an axis of that `width`, before `below`."""

    table: int
    row: int
    width: int
    below: int

    def apply(self, matrix: Tensor, vectors: Tensor) -> Tensor:
        """`matrix` times that axis of vectors (..., size)."""
        if self.below == 1:
            return (vectors.reshape(-1, self.width) @ matrix.T).reshape(vectors.shape)
        return torch.matmul(matrix, vectors.reshape(-1, self.width, self.below)).reshape(vectors.shape)

    def correlation(self, left: Tensor, right: Tensor) -> Tensor:
        """Sum over all other indices of left (vectors, size) times right: (width, width)."""
        left, right = (side.reshape(-1, self.width, self.below) for side in (left, right))
        return torch.einsum("aib,ajb->ij", left, right)


Step: TypeAlias = Renaming | FusedRotation


@dataclass(frozen=True, eq=False)
class MatrixTable:
    """How the matrices of all groups of one number of qubits come from angles.

    Attributes:
        slots: (matrices, qubits) indices of their angles.
        entries: (qubits, size**2) which of cos, -sin, sin, cos of the half angle each qubit gives to an entry.
        generators: (qubits, size**2) twice the matrix's derivative by each angle, times its inverse.
    """

    slots: Tensor
    entries: Tensor
    generators: Tensor

    def matrices(self, angles: Tensor) -> Tensor:
        """(matrices, size, size)."""
        half = 0.5 * angles[self.slots]
        cos, sin = half.cos(), half.sin()
        entries = torch.stack([cos, -sin, sin, cos], dim=-1)
        size = 2 ** self.slots.shape[1]
        return entries.gather(-1, self.entries.expand(len(half), -1, -1)).prod(1).reshape(-1, size, size)

    def slopes(self, correlations: Tensor) -> Tensor:
        """Derivatives (matrices, qubits) by the angles, for correlations (matrices, size, size) of gradient, result."""
        return 0.5 * correlations.flatten(1) @ self.generators.T


@dataclass(frozen=True, eq=False)
class FusedProgram:
    """Steps in order. Slots of the tables number the weights first, then the `fixed` angles."""

    steps: tuple[Step, ...]
    tables: tuple[MatrixTable, ...]
    fixed: Tensor


@lru_cache(maxsize=128)
def fused(circuit: Circuit, device: torch.device, dtype: torch.dtype) -> FusedProgram:
    """The program of a circuit; cached.

    Args:
        circuit: of RY and fixed real gates.
        device: where its tables will lie.
        dtype: of the tables.

    Raises: SimulationError for a gate that is neither RY nor a fixed real signed permutation, and for an input.
    """
    builder = _Builder(circuit, device, dtype)
    for run in _runs(circuit.operations):
        if run[0].gate_name == "RY":
            builder.add_rotations(run)
        else:
            builder.add_renaming(run)
    return builder.program()


def _runs(operations: Iterable[Operation]) -> Iterator[list[Operation]]:
    """Operations that act together: RY of different qubits in a row, or other gates in a row."""
    run: list[Operation] = []
    for operation in operations:
        turns = operation.gate_name == "RY"
        again = turns and any(operation.qubits == other.qubits for other in run)
        if run and (again or turns != (run[0].gate_name == "RY")):
            yield run
            run = []
        run.append(operation)
    if run:
        yield run


class _Builder:
    def __init__(self, circuit: Circuit, device: torch.device, dtype: torch.dtype) -> None:
        self._circuit, self._device, self._dtype = circuit, device, dtype
        self._steps: list[Step] = []
        self._slots: dict[int, list[list[int]]] = {}
        self._fixed = [0.0]

    def add_rotations(self, run: Sequence[Operation]) -> None:
        angles = {operation.qubits[0]: operation.angle for operation in run}
        num_qubits = self._circuit.num_qubits
        num_groups = -(-num_qubits // MAX_GROUP)
        for first, end in pairwise(num_qubits * group // num_groups for group in range(num_groups + 1)):
            slots = [self._slot(angles.get(qubit)) for qubit in range(first, end)]
            if all(slot == self._circuit.num_weights for slot in slots):
                continue
            rows = self._slots.setdefault(end - first, [])
            table = list(self._slots).index(end - first)
            self._steps.append(FusedRotation(table, len(rows), 2 ** (end - first), 2 ** (num_qubits - end)))
            rows.append(slots)

    def _slot(self, angle: Angle | None) -> int:
        match angle:
            case Weight(index):
                return index
            case Input():
                raise SimulationError("apply_circuit takes circuits without inputs; bind the inputs to numbers first.")
            case None:
                return self._circuit.num_weights  # the angle 0
            case number:
                self._fixed.append(float(number))
                return self._circuit.num_weights + len(self._fixed) - 1

    def add_renaming(self, run: Sequence[Operation]) -> None:
        gather = np.arange(2**self._circuit.num_qubits)
        signs = np.ones(len(gather))
        for operation in run:
            source, sign = _source(operation, self._circuit.num_qubits)
            gather, signs = gather[source], signs[source] * sign
        moves = not np.array_equal(gather, np.arange(len(gather)))
        there, back = (torch.as_tensor(order, device=self._device) for order in (gather, np.argsort(gather)))
        self._steps.append(Renaming(there if moves else None, back if moves else None, self._tensor(signs)))

    def program(self) -> FusedProgram:
        tables = [
            MatrixTable(
                slots=torch.as_tensor(slots, device=self._device),
                entries=torch.as_tensor(_entries(width), device=self._device),
                generators=self._tensor(_generators(width)),
            )
            for width, slots in self._slots.items()
        ]
        return FusedProgram(tuple(self._steps), tuple(tables), self._tensor(self._fixed))

    def _tensor(self, values: npt.ArrayLike) -> Tensor:
        return torch.as_tensor(np.asarray(values), dtype=self._dtype, device=self._device)


def _source(operation: Operation, num_qubits: int) -> tuple[IntArray, npt.NDArray[np.float64]]:
    """From where each basis state gets its amplitude, and with which sign."""
    matrix = operation.gate.matrix
    if matrix is None or np.count_nonzero(matrix) != len(matrix) or matrix.imag.any():
        raise SimulationError(
            "apply_circuit takes RY and fixed gates that are real signed permutations (X, Z, CNOT, CZ, SWAP); got "
            f"{operation.gate_name}. For expectation values of any circuit use expectations()."
        )
    states = np.arange(2**num_qubits)
    shifts = [num_qubits - 1 - qubit for qubit in operation.qubits]
    local = np.zeros_like(states)
    for shift in shifts:
        local = 2 * local + (states >> shift & 1)
    column_of = np.abs(matrix).argmax(1)
    source = states
    for place, shift in enumerate(reversed(shifts)):
        source = source & ~(1 << shift) | (column_of[local] >> place & 1) << shift
    return source, matrix.real[local, column_of[local]]


def _entries(num_qubits: int) -> IntArray:
    """2 * (bit of the row) + (bit of the column), for every qubit and every entry of a matrix."""
    size = 2**num_qubits
    bits = np.arange(size) >> np.arange(num_qubits)[::-1, None] & 1
    return (2 * bits[:, :, None] + bits[:, None, :]).reshape(num_qubits, size * size)


def _generators(num_qubits: int) -> npt.NDArray[np.float64]:
    """[[0, -1], [1, 0]] on each qubit and the identity on the others, flattened."""
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])
    full = [np.kron(np.kron(np.eye(2**q), turn), np.eye(2 ** (num_qubits - q - 1))) for q in range(num_qubits)]
    return np.stack(full).reshape(num_qubits, -1)

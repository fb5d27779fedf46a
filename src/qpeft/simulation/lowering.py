"""Gates as Y rotations, diagonal phases and permutations: three primitives that every gate of the table reduces to.

    parametrised   generator diagonal: a phase;  generator in the XY plane: RZ RY RZ;
                   otherwise one basis change per qubit makes it diagonal (RXX, CRX, CRY, ...)
    fixed          a permutation times phases (X, CNOT, SWAP, CZ, S, ...); or RZ RY RZ by Euler angles (H, SX);
                   otherwise again a basis change and phases

Y rotations are real and phases are diagonal, so no step ever multiplies general complex matrices. Global phases are
dropped. The decomposition is found from the gate's matrix, so a new row of the gate table usually needs nothing here.
"""

from __future__ import annotations

import cmath
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import numpy as np

from qpeft.circuits import GATES, Gate
from qpeft.circuits.gates import ComplexMatrix
from qpeft.errors import CircuitError


@dataclass(frozen=True)
class RealRotation:
    """RY on local qubit `qubit` by `factor * angle of the gate + offset`."""

    qubit: int
    factor: float = 0.0
    offset: float = 0.0


@dataclass(frozen=True)
class Phase:
    """exp(-i (factor * angle of the gate + offset) / 2 Z...Z) on the local `qubits`."""

    qubits: tuple[int, ...]
    factor: float = 0.0
    offset: float = 0.0


@dataclass(frozen=True)
class Permutation:
    """Basis state b becomes `images[b]`, b read from the local qubits, the first being most significant."""

    images: tuple[int, ...]


Primitive: TypeAlias = RealRotation | Phase | Permutation

_CLOSE = 1e-9


@cache
def lower_gate(name: str) -> tuple[Primitive, ...]:
    """The primitives of one gate of the table, in the order in which they act.

    Raises: CircuitError if the gate reduces to none of the forms above.
    """
    return tuple(decompose(GATES[name]))


def decompose(gate: Gate) -> list[Primitive]:
    """As `lower_gate`, for a gate that need not be in the table."""
    found = _decompose_rotation(gate) if gate.is_parametrised else _decompose_fixed(gate)
    if found is None:
        raise CircuitError(
            f"The simulator cannot reduce the gate {gate.name} to Y rotations, diagonal phases and permutations with "
            "one change of basis per qubit. Write it as a product of gates that are in the table."
        )
    return found


def _decompose_rotation(gate: Gate) -> list[Primitive] | None:
    generator = gate.generator
    assert generator is not None
    if gate.num_qubits == 1 and abs(np.trace(generator)) < _CLOSE and np.abs(np.diag(generator)).max() < _CLOSE:
        tilt = cmath.phase(generator[1, 0]) - math.pi / 2
        return [*_rz(0, -tilt), RealRotation(0, factor=abs(generator[1, 0])), *_rz(0, tilt)]
    return _in_diagonal_basis(generator, gate.num_qubits, is_generator=True)


def _decompose_fixed(gate: Gate) -> list[Primitive] | None:
    matrix = gate.matrix
    assert matrix is not None
    if np.count_nonzero(np.abs(matrix) > _CLOSE) == len(matrix):
        images = tuple(int(row) for row in np.abs(matrix).argmax(0))
        phases = np.angle(matrix[list(images), range(len(matrix))])
        after = np.empty_like(phases)
        after[list(images)] = phases
        permutation = [] if images == tuple(range(len(images))) else [Permutation(images)]
        return [*permutation, *_phases(-2 * after, gate.num_qubits, is_generator=False)]
    if gate.num_qubits == 1:
        return _euler(matrix, qubit=0)
    return _in_diagonal_basis(matrix, gate.num_qubits, is_generator=False)


def _euler(matrix: ComplexMatrix, *, qubit: int) -> list[Primitive]:
    """RZ RY RZ of any single-qubit unitary, up to a global phase."""
    cos, sin = abs(matrix[0, 0]), abs(matrix[1, 0])
    total = cmath.phase(matrix[1, 1] / matrix[0, 0]) if cos > _CLOSE else 0.0
    difference = cmath.phase(-matrix[1, 0] / matrix[0, 1]) if sin > _CLOSE else 0.0
    # The second equation fixes half angles up to pi only; the sign of the off-diagonal entry settles it.
    after, before = (total + difference) / 2, (total - difference) / 2
    angle = 2 * math.atan2(sin, cos)
    if cos > _CLOSE and sin > _CLOSE:
        expected = cmath.exp(1j * after) * sin / cos
        if (matrix[1, 0] / matrix[0, 0] / expected).real < 0:
            angle = -angle
    return [*_rz(qubit, before), RealRotation(qubit, offset=angle), *_rz(qubit, after)]


def _in_diagonal_basis(matrix: ComplexMatrix, num_qubits: int, *, is_generator: bool) -> list[Primitive] | None:
    """V diag V^H with V a product of single-qubit basis changes, each taking Z to one of Z, X, Y, or an eigenbasis."""
    bases = [np.eye(2, dtype=complex), *(_rotation(axis) for axis in "YX")]
    if num_qubits == 1:
        bases.append(np.linalg.eigh(matrix)[1] if is_generator else np.linalg.eig(matrix)[1])
    for choice in itertools.product(bases, repeat=num_qubits):
        change = choice[0]
        for basis in choice[1:]:
            change = np.kron(change, basis)
        rotated = change.conj().T @ matrix @ change
        if np.abs(rotated - np.diag(np.diag(rotated))).max() < _CLOSE:
            values = np.diag(rotated).real if is_generator else -2 * np.angle(np.diag(rotated))
            back = [_euler(basis.conj().T, qubit=qubit) for qubit, basis in enumerate(choice) if basis is not bases[0]]
            forth = [_euler(basis, qubit=qubit) for qubit, basis in enumerate(choice) if basis is not bases[0]]
            middle = _phases(values, num_qubits, is_generator=is_generator)
            return [*itertools.chain(*back), *middle, *itertools.chain(*forth)]
    return None


def _rotation(axis: str) -> ComplexMatrix:
    """The basis change that takes Z to X (axis Y) or to Y (axis X)."""
    return GATES["RY"].unitary(math.pi / 2) if axis == "Y" else GATES["RX"].unitary(-math.pi / 2)


def _phases(values: np.ndarray, num_qubits: int, *, is_generator: bool) -> Iterator[Phase]:
    """exp(-i/2 (angle times) values[b]) per basis state b as phases on products of Z."""
    for mask in range(1, 2**num_qubits):
        signs = [(-1) ** (mask & state).bit_count() for state in range(2**num_qubits)]
        weight = float(np.dot(signs, values)) / 2**num_qubits
        if abs(weight) > _CLOSE:
            qubits = tuple(qubit for qubit in range(num_qubits) if mask >> (num_qubits - 1 - qubit) & 1)
            yield Phase(qubits, factor=weight) if is_generator else Phase(qubits, offset=weight)


def _rz(qubit: int, angle: float) -> list[Primitive]:
    return [] if abs(angle) < _CLOSE else [Phase((qubit,), offset=angle)]

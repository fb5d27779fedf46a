"""The gate table: every gate that a circuit may contain, one row each, and all that simulators and devices ask of it.

A fixed gate is given by its matrix. A parametrised gate is given by its Hermitian generator G, so that

    U(angle) = exp(-i angle G / 2),

from which simulators, gradients and parameter-shift rules are all derived. Matrices act on the gate's qubits in the
order in which an operation lists them, the first being the most significant bit of the row index.

A gate on two qubits says beside it how it is made of gates that lead towards CZ and gates on one qubit, for devices
that lack it. A gate on one qubit need not: any of them is RZ RY RZ, at angles found from its matrix.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

ComplexMatrix = npt.NDArray[np.complex128]


@dataclass(frozen=True)
class Part:
    """One of several gates that make another, which is the gate at `times` its angle, or at a fixed `angle`, radians.

    `qubits`: places among the qubits of the whole gate. Neither `times` nor `angle` for a gate without an angle.
    """

    gate_name: str
    qubits: tuple[int, ...]
    times: float | None = None
    angle: float | None = None


@dataclass(frozen=True, eq=False)
class Gate:
    """One row of the table.

    Attributes:
        name: the key in `GATES`.
        num_qubits: how many qubits it acts on.
        matrix: the unitary of a fixed gate, (2**num_qubits, 2**num_qubits); None for a parametrised one.
        generator: Hermitian G of a parametrised gate, same shape; None for a fixed one.
        parts: the same in other gates up to a global phase, in time order; () for CZ and most gates on one qubit.
    """

    name: str
    num_qubits: int
    matrix: ComplexMatrix | None = None
    generator: ComplexMatrix | None = None
    parts: tuple[Part, ...] = ()

    @property
    def is_parametrised(self) -> bool:
        return self.generator is not None

    @cached_property
    def spectrum(self) -> tuple[tuple[float, ComplexMatrix], ...]:
        """Distinct eigenvalues of the generator and the projectors onto their eigenspaces, ascending."""
        assert self.generator is not None, f"{self.name} has no generator"
        values, vectors = np.linalg.eigh(self.generator)
        # Rounded, since equal eigenvalues come out with different last digits.
        levels = sorted(set(np.round(values, 9).tolist()))
        projectors = []
        for level in levels:
            basis = vectors[:, np.isclose(values, level)]
            projectors.append((float(level), basis @ basis.conj().T))
        return tuple(projectors)

    def unitary(self, angle: float | None = None) -> ComplexMatrix:
        """Return the gate's matrix; `angle` in radians, exactly for a parametrised gate."""
        assert (angle is not None) == self.is_parametrised, f"{self.name}: angle given or missing"
        if angle is None:
            assert self.matrix is not None
            return self.matrix
        terms = [np.exp(-0.5j * angle * value) * projector for value, projector in self.spectrum]
        return np.asarray(sum(terms), dtype=complex)


_I = np.eye(2, dtype=complex)
_X = np.array([[0, 1], [1, 0]], dtype=complex)
_Y = np.array([[0, -1j], [1j, 0]])
_Z = np.diag([1, -1]).astype(complex)

PAULI_MATRICES: dict[str, ComplexMatrix] = {"I": _I, "X": _X, "Y": _Y, "Z": _Z}


def _controlled(matrix: ComplexMatrix, *, otherwise: ComplexMatrix) -> ComplexMatrix:
    """Return `matrix` on the second qubit where the first is 1, `otherwise` where it is 0."""
    return np.kron(np.diag([1, 0]), otherwise) + np.kron(np.diag([0, 1]), matrix)


def _fixed(name: str, matrix: npt.ArrayLike, *parts: Part) -> Gate:
    unitary = np.asarray(matrix, dtype=complex)
    return Gate(name, num_qubits=len(unitary).bit_length() - 1, matrix=unitary, parts=parts)


def _rotation(name: str, generator: ComplexMatrix, *parts: Part) -> Gate:
    return Gate(name, num_qubits=len(generator).bit_length() - 1, generator=generator, parts=parts)


# Generators: a controlled rotation does nothing where the control is 0.
_NOTHING = np.zeros((2, 2), dtype=complex)
# exp(-i angle G / 2) is diag(1, e^(i angle)).
_PHASE = np.diag([0, -2]).astype(complex)
_H0, _H1, _CNOT, _CZ = Part("H", (0,)), Part("H", (1,)), Part("CNOT", (0, 1)), Part("CZ", (0, 1))
_RZZ = Part("RZZ", (0, 1), times=1)
# A rotation about X by a quarter turn takes Z to Y.
_TURNS = [Part("RX", (qubit,), angle=math.pi / 2) for qubit in (0, 1)]
_TURNS_BACK = [Part("RX", (qubit,), angle=-math.pi / 2) for qubit in (0, 1)]


def _halves(axis: str, flip: Part) -> tuple[Part, ...]:
    """Return the parts of a controlled rotation. `flip` turns its sense, so halves add up where the control is 1."""
    return Part(axis, (1,), times=0.5), flip, Part(axis, (1,), times=-0.5), flip


GATES: dict[str, Gate] = {
    gate.name: gate
    for gate in (
        _fixed("H", math.sqrt(0.5) * np.array([[1, 1], [1, -1]])),
        _fixed("X", _X),
        _fixed("Y", _Y),
        _fixed("Z", _Z),
        _fixed("S", np.diag([1, 1j])),
        _fixed("SDG", np.diag([1, -1j])),
        _fixed("T", np.diag([1, np.exp(0.25j * np.pi)])),
        _fixed("TDG", np.diag([1, np.exp(-0.25j * np.pi)])),
        # No fixed gate of the table undoes SX; that of its part does.
        _fixed("SX", np.array([[1 + 1j, 1 - 1j], [1 - 1j, 1 + 1j]]) / 2, Part("RX", (0,), angle=math.pi / 2)),
        _fixed("CNOT", _controlled(_X, otherwise=_I), _H1, _CZ, _H1),
        _fixed("CY", _controlled(_Y, otherwise=_I), Part("SDG", (1,)), _CNOT, Part("S", (1,))),
        _fixed("CZ", _controlled(_Z, otherwise=_I)),
        _fixed("SWAP", np.eye(4)[[0, 2, 1, 3]], _CNOT, Part("CNOT", (1, 0)), _CNOT),
        _rotation("RX", _X),
        _rotation("RY", _Y),
        _rotation("RZ", _Z),
        _rotation("PHASE", _PHASE),
        _rotation("CRX", _controlled(_X, otherwise=_NOTHING), *_halves("RX", _CZ)),
        _rotation("CRY", _controlled(_Y, otherwise=_NOTHING), *_halves("RY", _CZ)),
        _rotation("CRZ", _controlled(_Z, otherwise=_NOTHING), *_halves("RZ", _CNOT)),
        _rotation(
            "CPHASE",
            _controlled(_PHASE, otherwise=_NOTHING),
            Part("PHASE", (0,), times=0.5),
            Part("CRZ", (0, 1), times=1),
        ),
        _rotation("RXX", np.kron(_X, _X), _H0, _H1, _RZZ, _H0, _H1),
        _rotation("RYY", np.kron(_Y, _Y), *_TURNS, _RZZ, *_TURNS_BACK),
        _rotation("RZZ", np.kron(_Z, _Z), _CNOT, Part("RZ", (1,), times=1), _CNOT),
    )
}

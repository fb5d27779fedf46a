"""Gates as real matrices that are trigonometric in their angle: matrix(angle) = sum_k function_k(angle) matrices[k].

The functions are 1, and cos and sin of the angle times each frequency. One form serves two representations: Pauli
coefficients of a density matrix, and real and imaginary parts of amplitudes. No complex tensor is needed for either.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from qpeft.circuits import GATES, Angle, Input, Weight
from qpeft.circuits.gates import PAULI_MATRICES, ComplexMatrix, Gate
from qpeft.simulation.noise.channels import RealMatrix


@dataclass(frozen=True, eq=False)
class TrigonometricMatrix:
    """A real matrix as a function of an angle.

    Attributes:
        frequencies: of the functions after the constant, each standing for a cosine and a sine.
        matrices: one per function, (1 + 2 len(frequencies), size, size): constant, cosines, sines.
    """

    frequencies: tuple[float, ...]
    matrices: RealMatrix

    def followed_by(self, matrix: RealMatrix) -> TrigonometricMatrix:
        return TrigonometricMatrix(self.frequencies, matrix @ self.matrices)


def functions(frequencies: tuple[float, ...], angle: Tensor) -> Tensor:
    """1, cosines, sines of the angle, (functions, *angle)."""
    phases = _phases(frequencies, angle)
    return torch.cat([torch.ones_like(angle)[None], phases.cos(), phases.sin()])


def slopes(frequencies: tuple[float, ...], angle: Tensor) -> Tensor:
    """Derivatives of `functions` with respect to the angle, (functions, *angle)."""
    phases, factors = _phases(frequencies, angle), _factors(frequencies, angle)
    return torch.cat([torch.zeros_like(angle)[None], -factors * phases.sin(), factors * phases.cos()])


def angle_values(angle: Angle | None, inputs: Tensor, weights: Tensor) -> Tensor:
    """The angle in radians: (tokens,) for an input, a scalar otherwise; 0 for a gate without angle."""
    match angle:
        case Input(index):
            return inputs[:, index]
        case Weight(index):
            return weights[index]
        case None:
            return weights.new_zeros(())
        case number:
            return weights.new_tensor(number)


@cache
def on_pauli_coefficients(gate_name: str) -> TrigonometricMatrix:
    """Pauli transfer matrix of a gate, (4**num_qubits, 4**num_qubits): R[a, b] = Tr(P_a U P_b U^H) / 2**num_qubits.

    With the eigenprojectors Q_k of the generator, U P U^H = sum_kl exp(-i angle (level_k - level_l) / 2) Q_k P Q_l.
    """
    gate = GATES[gate_name]
    paulis = _pauli_strings(gate.num_qubits)
    terms = []
    for (level, left), (other, right) in itertools.product(_spectrum(gate), repeat=2):
        moved = np.einsum("aij,jk,bkl,lm->abim", paulis, left, paulis, right.conj().T)
        terms.append(((level - other) / 2, np.einsum("abii->ab", moved) / 2**gate.num_qubits))
    return _collected(terms)


@cache
def on_amplitudes(gate_name: str) -> TrigonometricMatrix:
    """[[Re U, -Im U], [Im U, Re U]] of a gate: acts on real parts followed by imaginary parts."""
    gate = GATES[gate_name]
    # Re(z M) and Im(z M) for z = exp(-i x) are the real forms of cos(x) M and sin(x) (-i M).
    pairs = [(level / 2, projector) for level, projector in _spectrum(gate)]
    terms = [(frequency, _real_form(matrix) + 1j * _real_form(-1j * matrix)) for frequency, matrix in pairs]
    return _collected(terms)


def apply(gate: TrigonometricMatrix, angle: Tensor, state: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The gate on some axes of a state whose last axis is the tokens; same shape as `state`.

    Args:
        angle: radians, a scalar or one per token.
        axes: what the gate acts on; sizes multiply to the size of the gate.
    """
    matrices = torch.from_numpy(gate.matrices).to(state)
    return apply_weighted(matrices, functions(gate.frequencies, angle), state, axes)


def apply_weighted(matrices: Tensor, weights: Tensor, state: Tensor, axes: tuple[int, ...]) -> Tensor:
    """sum_k weights[k] matrices[k] on some axes of a state; weights are (functions,) or (functions, tokens)."""
    rows = as_rows(state, axes)
    if weights.ndim == 1:
        result: Tensor = torch.tensordot(weights, matrices, 1) @ rows.flatten(1)
    else:
        products = (matrices.flatten(0, 1) @ rows.flatten(1)).reshape(len(matrices), *rows.shape)
        result = (products * weights[:, None, None]).sum(0)
    first = range(len(axes))
    sizes = [state.shape[axis] for axis in axes] + [size for axis, size in enumerate(state.shape) if axis not in axes]
    return result.reshape(sizes).movedim(tuple(first), axes)


def as_rows(state: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The state as (named axes in the order given, all other axes, tokens)."""
    moved = state.movedim(axes, tuple(range(len(axes))))
    named, others = moved.shape[: len(axes)].numel(), moved.shape[len(axes) : -1].numel()
    return moved.reshape(named, others, moved.shape[-1])


def _spectrum(gate: Gate) -> tuple[tuple[float, ComplexMatrix], ...]:
    """Levels and eigenprojectors; a fixed gate counts as one level, 0, with its matrix."""
    if gate.matrix is not None:
        return ((0.0, gate.matrix),)
    return gate.spectrum


def _collected(terms: list[tuple[float, ComplexMatrix]]) -> TrigonometricMatrix:
    """Real part of sum exp(-i frequency angle) term, terms of equal frequency up to sign merged."""
    merged: dict[float, tuple[RealMatrix, RealMatrix]] = {}
    for signed, term in terms:
        frequency = round(abs(signed), 9)
        cosine, sine = merged.get(frequency, (np.zeros(term.shape), np.zeros(term.shape)))
        merged[frequency] = (cosine + term.real, sine + np.sign(signed) * term.imag)
    size = terms[0][1].shape
    constant = merged.pop(0.0, (np.zeros(size), None))[0]
    parts = [constant, *(cosine for cosine, _ in merged.values()), *(sine for _, sine in merged.values())]
    matrices = np.stack(parts)
    matrices[np.abs(matrices) < 1e-12] = 0.0  # exact zeros, so that what must vanish does
    return TrigonometricMatrix(tuple(merged), matrices)


def _pauli_strings(num_qubits: int) -> ComplexMatrix:
    """All Pauli strings, (4**num_qubits, 2**num_qubits, 2**num_qubits); IXYZ, first qubit the slowest."""
    strings = [np.ones((1, 1), dtype=complex)]
    for _ in range(num_qubits):
        strings = [np.kron(left, PAULI_MATRICES[letter]) for left in strings for letter in "IXYZ"]
    return np.stack(strings)


def _real_form(matrix: ComplexMatrix) -> RealMatrix:
    return np.block([[matrix.real, -matrix.imag], [matrix.imag, matrix.real]])


def _factors(frequencies: tuple[float, ...], angle: Tensor) -> Tensor:
    return angle.new_tensor(frequencies).reshape(-1, *[1] * angle.ndim)


def _phases(frequencies: tuple[float, ...], angle: Tensor) -> Tensor:
    return _factors(frequencies, angle) * angle

"""Noise channels as Pauli transfer matrices: real matrices that act on the Pauli coefficients of a density matrix.

With rho = 2**-n sum_P c_P P, a channel maps the vector c to R c, R[a, b] = Tr(P_a channel(P_b)) / 2**n. Order of the
Paulis of one qubit: I, X, Y, Z. Source: Greenbaum, Introduction to quantum gate set tomography, arXiv:1509.02921, 2.3.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qpeft.circuits import GATES, Angle, Input, Weight
from qpeft.circuits.gates import PAULI_MATRICES, ComplexMatrix, Gate
from qpeft.errors import NoiseError
from qpeft.simulation.noise.model import Damping, NoiseModel, ReadoutError

RealMatrix = npt.NDArray[np.float64]


def damping_channel(damping: Damping) -> RealMatrix:
    """Amplitude and phase damping of one qubit, (4, 4): X and Y shrink, Z shrinks towards |0>."""
    decayed, coherent = damping.amplitude, math.sqrt((1 - damping.amplitude) * (1 - damping.phase))
    channel = np.diag([1.0, coherent, coherent, 1 - decayed])
    channel[3, 0] = decayed
    return channel


def depolarising_channel(probability: float, num_qubits: int) -> RealMatrix:
    """rho -> (1 - p) rho + p I / 2**n, (4**n, 4**n): every Pauli but the identity shrinks by 1 - p."""
    return np.diag([1.0] + [1 - probability] * (4**num_qubits - 1))


def gate_noise(noise: NoiseModel, qubits: tuple[int, ...]) -> RealMatrix:
    """What follows a gate on these qubits, (4**len(qubits), 4**len(qubits)): damping, then depolarising.

    Raises: NoiseError if the model lacks the qubit or edge.
    """
    if len(qubits) == 1:
        qubit = noise.qubit(qubits[0])
        return depolarising_channel(qubit.depolarising, 1) @ damping_channel(qubit.damping)
    edge = noise.edge(*qubits)
    first, second = (damping_channel(damping) for damping in edge.damping)
    return depolarising_channel(edge.depolarising, 2) @ np.kron(first, second)


def readout_row(readout: ReadoutError, letter: str) -> npt.NDArray[np.float64]:
    """Which Pauli coefficients of a qubit are read when `letter` is measured, (4,).

    A measured Pauli P, +1 for bit 0 and -1 for bit 1, comes out as (1 - p10 - p01) P + (p01 - p10) I, with
    p10 = p(1|0) and p01 = p(0|1). The change of basis before the measurement of X or Y is taken as free of noise.
    """
    row = np.zeros(4)
    if letter == "I":
        row[0] = 1.0
    else:
        row["IXYZ".index(letter)] = 1 - readout.p1_given_0 - readout.p0_given_1
        row[0] = readout.p0_given_1 - readout.p1_given_0
    return row


def average_fidelity(channel: RealMatrix) -> float:
    """Average gate fidelity of noise, (4**num_qubits, 4**num_qubits), against doing nothing.

    Source: as `depolarising_from_fidelity`, whose inverse it is.
    """
    dimension = math.isqrt(len(channel))
    return float((np.trace(channel) / dimension + 1) / (dimension + 1))


def depolarising_from_fidelity(fidelity: float, damping: Sequence[Damping]) -> float:
    """The depolarising probability with which a gate reaches an average gate fidelity, its damping being counted in.

    Calibrations state fidelity and T1, T2 side by side, and the first contains the second: with this probability,
    damping followed by depolarising has exactly this fidelity. 0 if damping alone costs more than that.

    Args:
        fidelity: average gate fidelity, as randomised benchmarking measures it.
        damping: one entry per qubit of the gate: `[Damping()]` for a one-qubit gate with no damping of its own.

    Raises: NoiseError if the fidelity is below that of a fully depolarising gate, 1 / 2**num_qubits, or above 1.
    Source: Nielsen, arXiv:quant-ph/0205035: F = (d F_process + 1) / (d + 1), F_process = Tr(R) / d**2.
    """
    dimension = 2 ** len(damping)
    if not 1 / dimension <= fidelity <= 1:
        raise NoiseError(
            f"The fidelity of a gate on {len(damping)} qubit(s) is from {1 / dimension} to 1; got {fidelity}. "
            f"Leave out qubits and edges that are dead."
        )
    trace = dimension * ((dimension + 1) * fidelity - 1)
    trace_of_damping = math.prod(float(np.trace(damping_channel(entry))) for entry in damping)
    if trace_of_damping <= 1:  # only the identity survives, nothing is left to depolarise
        return 0.0
    return float(max(0.0, 1 - (trace - 1) / (trace_of_damping - 1)))


# Gates as real matrices that are trigonometric in their angle: matrix(angle) = sum_k function_k(angle) matrices[k].
#
# The functions are 1, and cos and sin of the angle times each frequency. One form serves two representations: Pauli
# coefficients of a density matrix, and real and imaginary parts of amplitudes. No complex tensor is needed for either.


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
    """The angle in radians: (tokens,) for an input, a scalar otherwise; 0 for a gate without angle.

    Args:
        angle: of an operation; None for a gate without one.
        inputs: (tokens, num_inputs), radians.
        weights: (num_weights,), radians.
    """
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
    """sum_k weights[k] matrices[k] on some axes of a state; weights are (functions,) or (functions, tokens).

    Args:
        matrices: (functions, size, size), on the axes together.
        weights: of the matrices, the same for all tokens or one set for each.
        state: whose last axis is the tokens.
        axes: that the matrices act on.
    """
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

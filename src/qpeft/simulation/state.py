"""State vectors as pairs of real tensors, and the operations that act on them."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from qpeft.circuits import Input, Operation, Weight
from qpeft.circuits.gates import PAULI_MATRICES, ComplexMatrix

Complex: TypeAlias = tuple[Tensor, Tensor]
"""Real and imaginary part, (2**num_qubits, tokens) each. Complex tensors are several times slower."""


def zero_state(num_qubits: int, tokens: int, *, like: Tensor) -> Complex:
    """|0...0> for every token, with the dtype and device of `like`."""
    real = like.new_zeros(2**num_qubits, tokens)
    real[0] = 1
    return real, torch.zeros_like(real)


def angle_of(operation: Operation, inputs: Tensor, weights: Tensor) -> Tensor | None:
    """The operation's angle, radians: (tokens,) for an input, a scalar otherwise, None for a fixed gate."""
    match operation.angle:
        case None:
            return None
        case Input(index):
            return inputs[:, index]
        case Weight(index):
            return weights[index]
        case number:
            return weights.new_tensor(number)


def apply_operation(state: Complex, operation: Operation, angle: Tensor | None, *, inverse: bool = False) -> Complex:
    """`operation` (or its inverse) on the state."""
    gate = operation.gate
    if angle is None:
        assert gate.matrix is not None
        matrix = gate.matrix.conj().T if inverse else gate.matrix
        return _apply_terms(state, operation.qubits, [(matrix, None)])
    half = angle * (-0.5 if inverse else 0.5)
    return _apply_terms(state, operation.qubits, [(projector, half * level) for level, projector in gate.spectrum])


def apply_generator(state: Complex, operation: Operation) -> Complex:
    """G of a parametrised gate U = exp(-i angle G / 2) on the state."""
    assert operation.gate.generator is not None
    return _apply_terms(state, operation.qubits, [(operation.gate.generator, None)])


def apply_pauli_string(state: Complex, letters: str) -> Complex:
    """A Pauli string on the state, leftmost letter on qubit 0."""
    for qubit, letter in enumerate(letters):
        if letter != "I":
            state = _apply_terms(state, (qubit,), [(PAULI_MATRICES[letter], None)])
    return state


def inner_product(left: Complex, right: Complex) -> Complex:
    """<left|right> per token."""
    real = (left[0] * right[0] + left[1] * right[1]).sum(0)
    imag = (left[0] * right[1] - left[1] * right[0]).sum(0)
    return real, imag


def _apply_terms(state: Complex, qubits: tuple[int, ...], terms: list[tuple[ComplexMatrix, Tensor | None]]) -> Complex:
    """sum_k exp(-i phase_k) M_k on `qubits`, with phase None for 1 and matrices sparse enough to go entry by entry."""
    num_qubits = state[0].shape[0].bit_length() - 1
    views = [part.reshape(*[2] * num_qubits, -1) for part in state]
    results = [torch.zeros_like(view) for view in views]
    factors = [(1.0, 0.0) if phase is None else (phase.cos(), -phase.sin()) for _, phase in terms]
    for row, column in np.argwhere(np.any([np.abs(matrix) > 1e-12 for matrix, _ in terms], axis=0)):
        entries = [complex(matrix[row, column]) for matrix, _ in terms]
        real = sum(e.real * c - e.imag * s for e, (c, s) in zip(entries, factors, strict=True))
        imag = sum(e.real * s + e.imag * c for e, (c, s) in zip(entries, factors, strict=True))
        source, target = _slice(num_qubits, qubits, column), _slice(num_qubits, qubits, row)
        a, b = views[0][source], views[1][source]
        results[0][target] += real * a - imag * b
        results[1][target] += real * b + imag * a
    return results[0].reshape_as(state[0]), results[1].reshape_as(state[1])


def _slice(num_qubits: int, qubits: tuple[int, ...], value: int) -> tuple[int | slice, ...]:
    """Index of all amplitudes in which `qubits` read `value`, the first qubit being its most significant bit."""
    index: list[int | slice] = [slice(None)] * num_qubits
    for position, qubit in enumerate(reversed(qubits)):
        index[qubit] = (int(value) >> position) & 1
    return tuple(index)

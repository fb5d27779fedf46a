"""Noiseless values from dense complex128 matrices and torch's own gradients; shares only the gate table with qpeft."""

from __future__ import annotations

from functools import reduce

import numpy as np
import torch
from torch import Tensor

from qpeft.circuits import Circuit, Input, Weight
from qpeft.circuits.gates import PAULI_MATRICES


def dense_state(circuit: Circuit, row: Tensor, weights: Tensor) -> Tensor:
    """Amplitudes for one row of inputs, (2**num_qubits,), complex128."""
    state = torch.zeros(2**circuit.num_qubits, dtype=torch.complex128)
    state[0] = 1
    for operation in circuit.operations:
        match operation.angle:
            case Input(index):
                angle = row[index]
            case Weight(index):
                angle = weights[index]
            case number:
                angle = torch.tensor(number or 0.0)
        gate, qubits = operation.gate, operation.qubits
        if gate.generator is not None:
            unitary = torch.matrix_exp(-0.5j * angle * torch.from_numpy(gate.generator).to(state))
        else:
            unitary = torch.from_numpy(gate.matrix).to(state)
        unitary = unitary.reshape([2] * 2 * gate.num_qubits)
        inner = list(range(gate.num_qubits, 2 * gate.num_qubits))
        moved = torch.tensordot(unitary, state.reshape([2] * circuit.num_qubits), (inner, list(qubits)))
        state = moved.movedim(list(range(gate.num_qubits)), list(qubits)).reshape(-1)
    return state


def dense_expectations(circuit: Circuit, inputs: Tensor, weights: Tensor) -> Tensor:
    """(rows, num_observables), float64, differentiable."""
    strings = [torch.from_numpy(reduce(np.kron, [PAULI_MATRICES[p] for p in o])) for o in circuit.observables]
    rows = []
    for row in inputs:
        state = dense_state(circuit, row, weights)
        rows.append(torch.stack([(state.conj() @ (string.to(state) @ state)).real for string in strings]))
    return torch.stack(rows)

"""An independent answer: circuits as dense complex128 matrices, built gate by gate with np.kron. Slow and plain."""

from __future__ import annotations

import numpy as np

from qpeft.circuits import Circuit, Input, Operation, Weight

I2, X, Y, Z = np.eye(2), np.array([[0, 1], [1, 0]]), np.array([[0, -1j], [1j, 0]]), np.diag([1, -1])
PAULIS = {"I": I2, "X": X, "Y": Y, "Z": Z}


def controlled(matrix):
    return np.kron(np.diag([1, 0]), I2) + np.kron(np.diag([0, 1]), matrix)


def rotation(axis, angle):
    """exp(-i angle/2 axis) for an axis that squares to 1."""
    return np.cos(angle / 2) * np.eye(len(axis)) - 1j * np.sin(angle / 2) * axis


def phase(angle):
    return np.diag([1, np.exp(1j * angle)])


# Written down from the textbook, not from the gate table.
FIXED = {
    "H": (X + Z) / np.sqrt(2),
    "X": X,
    "Y": Y,
    "Z": Z,
    "S": np.diag([1, 1j]),
    "SDG": np.diag([1, -1j]),
    "T": phase(np.pi / 4),
    "TDG": phase(-np.pi / 4),
    "SX": np.exp(0.25j * np.pi) * rotation(X, np.pi / 2),
    "CNOT": controlled(X),
    "CY": controlled(Y),
    "CZ": controlled(Z),
    "SWAP": np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]),
}
PARAMETRISED = {
    "RX": lambda angle: rotation(X, angle),
    "RY": lambda angle: rotation(Y, angle),
    "RZ": lambda angle: rotation(Z, angle),
    "PHASE": phase,
    "CRX": lambda angle: controlled(rotation(X, angle)),
    "CRY": lambda angle: controlled(rotation(Y, angle)),
    "CRZ": lambda angle: controlled(rotation(Z, angle)),
    "CPHASE": lambda angle: controlled(phase(angle)),
    "RXX": lambda angle: rotation(np.kron(X, X), angle),
    "RYY": lambda angle: rotation(np.kron(Y, Y), angle),
    "RZZ": lambda angle: rotation(np.kron(Z, Z), angle),
}


def gate_matrices(operation: Operation, inputs, weights):
    """(rows, 2**k, 2**k): the gate for every row of angles."""
    match operation.angle:
        case None:
            return FIXED[operation.gate_name][None]
        case Input(index):
            angles = inputs[:, index]
        case Weight(index):
            angles = weights[:, index]
        case number:
            return PARAMETRISED[operation.gate_name](number)[None]
    distinct, where = np.unique(angles, return_inverse=True)
    return np.stack([PARAMETRISED[operation.gate_name](angle) for angle in distinct])[where]


def final_states(circuit: Circuit, inputs, weights):
    """(rows, 2, ..., 2), qubit 0 first, for inputs (rows, num_inputs) and weights (rows, num_weights)."""
    states = np.zeros([len(inputs)] + [2] * circuit.num_qubits, complex)
    states.reshape(len(inputs), -1)[:, 0] = 1
    for operation in circuit.operations:
        axes = [1 + qubit for qubit in operation.qubits]
        states = apply(gate_matrices(operation, inputs, weights), states, axes)
    return states


def apply(matrices, states, axes):
    """Matrices (rows or 1, 2**k, 2**k) on the given k axes of the states, the first being most significant."""
    front = np.moveaxis(states, axes, range(1, 1 + len(axes)))
    flat = front.reshape(len(states), matrices.shape[-1], -1)
    return np.moveaxis((matrices @ flat).reshape(front.shape), range(1, 1 + len(axes)), axes)


def expectations(circuit: Circuit, inputs, weights):
    """(rows, num_observables) for inputs (rows, num_inputs) and weights (num_weights,) or one row of them per row."""
    inputs, weights = np.asarray(inputs, float), np.asarray(weights, float)
    weights = np.broadcast_to(weights, (len(inputs), weights.shape[-1]))
    states = final_states(circuit, inputs, weights)
    columns = []
    for letters in circuit.observables:
        images = states
        for qubit, letter in enumerate(letters):
            if letter != "I":
                images = apply(PAULIS[letter][None], images, [1 + qubit])
        columns.append((states.conj() * images).reshape(len(inputs), -1).sum(1).real)
    return np.array(columns).reshape(circuit.num_observables, len(inputs)).T


def pauli_matrix(letters):
    matrix = np.eye(1)
    for letter in letters:
        matrix = np.kron(matrix, PAULIS[letter])
    return matrix


def gradients(circuit: Circuit, inputs, weights, grad, *, step=1e-4):
    """Central differences of sum(expectations * grad) by inputs and weights; error about step**2."""
    inputs, grad = np.asarray(inputs, float), np.asarray(grad, float)
    rows, num_inputs = inputs.shape
    angles = np.hstack([inputs, np.tile(np.asarray(weights, float), (rows, 1))])
    if not angles.shape[1]:
        return np.zeros((rows, 0)), np.zeros(0)
    shifts = step * np.eye(angles.shape[1])
    shifted = np.concatenate([angles + sign * shift for shift in shifts for sign in (1, -1)])
    values = expectations(circuit, shifted[:, :num_inputs], shifted[:, num_inputs:])
    slopes = (values.reshape(len(shifts), 2, rows, -1) * grad).sum(-1)
    slopes = (slopes[:, 0] - slopes[:, 1]).T / (2 * step)
    return slopes[:, :num_inputs], slopes[:, num_inputs:].sum(0)

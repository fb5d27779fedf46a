"""Probabilities of bit strings: what samples are drawn from, with noise and without."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from qpeft.circuits import Circuit, Operation
from qpeft.errors import SimulationError
from qpeft.simulation.noise import gates
from qpeft.simulation.noise.density import check_size, pauli_coefficients
from qpeft.simulation.noise.model import NoiseModel, ReadoutError

MAX_QUBITS = 20

TO_Z_BASIS = {"X": ("H",), "Y": ("SDG", "H"), "Z": ()}
"""Gates after which a Z measurement reads each letter."""


def outcome_probabilities(
    circuit: Circuit,
    inputs: Float[Tensor, "tokens num_inputs"],
    weights: Float[Tensor, " num_weights"],
    basis: str,
    noise: NoiseModel | None,
) -> Float[Tensor, "tokens outcomes"]:
    """Probability of every bit string when qubit q is measured in the basis of letter q; qubit 0 is the leftmost bit.

    Args:
        inputs, weights: angles in radians, of the type in which to compute.
        basis: one of X, Y, Z per qubit; the change of basis is free of noise.
        noise: None for a perfect machine.

    Returns:
        (tokens, 2**num_qubits), rows of sum 1 up to rounding.

    Raises:
        SimulationError: more than `MAX_QUBITS` qubits, or with noise more than density matrices allow.
        NoiseError: the model lacks a qubit or an edge.
    """
    if noise is None:
        return _perfect(circuit, inputs, weights, basis)
    check_size(circuit)
    noise.check_covers(circuit)
    state = pauli_coefficients(circuit, inputs, weights, noise)
    for qubit, letter in enumerate(basis):
        matrix = state.new_zeros(2, 4)
        matrix[:, [0, "IXYZ".index(letter)]] = state.new_tensor(_reading(noise.qubit(qubit).readout))
        state = torch.tensordot(matrix, state, ([1], [qubit])).movedim(0, qubit)
    # Rounding can leave an impossible outcome at -1e-17.
    return state.flatten(0, -2).T.clamp(min=0)


def _reading(readout: ReadoutError) -> list[list[float]]:
    """p(bit read) = row . (Tr rho, Tr P rho), from p(bit) = (1 +- Tr P rho) / 2 and the readout errors; bit 0 first."""
    p10, p01 = readout.p1_given_0, readout.p0_given_1
    return [[(1 - p10 + p01) / 2, (1 - p10 - p01) / 2], [(1 - p01 + p10) / 2, (p10 + p01 - 1) / 2]]


def _perfect(circuit: Circuit, inputs: Tensor, weights: Tensor, basis: str) -> Tensor:
    num_qubits = circuit.num_qubits
    if num_qubits > MAX_QUBITS:
        raise SimulationError(
            f"Sampling holds all amplitudes, for at most {MAX_QUBITS} qubits; got {num_qubits}, for which one state "
            f"of one token takes {2 ** (num_qubits + 1) * 8 / 2**20:,.0f} MiB."
        )
    changes = [Operation(name, (qubit,)) for qubit, letter in enumerate(basis) for name in TO_Z_BASIS[letter]]
    # Axis 0: real and imaginary parts; axis q + 1: qubit q; then tokens.
    state = inputs.new_zeros(2 ** (num_qubits + 1), len(inputs))
    state[0] = 1
    state = state.reshape(*[2] * (num_qubits + 1), len(inputs))
    for operation in (*circuit.operations, *changes):
        gate, axes = gates.on_amplitudes(operation.gate_name), (0, *(qubit + 1 for qubit in operation.qubits))
        state = gates.apply(gate, gates.angle_values(operation.angle, inputs, weights), state, axes)
    return state.square().sum(0).flatten(0, -2).T

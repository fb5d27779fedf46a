"""Probabilities of bit strings: what samples are drawn from, with noise and without."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from qpeft.circuits import Circuit, Operation
from qpeft.simulation.noise.density import check_size, pauli_coefficients
from qpeft.simulation.noise.model import NoiseModel, ReadoutError
from qpeft.simulation.states import final_states
from qpeft.simulation.threads import threads_for

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
    numbers = len(inputs) << circuit.num_qubits * (1 if noise is None else 2)
    with threads_for(numbers, inputs.device):
        if noise is None:
            return _perfect(circuit, inputs, weights, basis)
        check_size(circuit)
        noise.check_covers(circuit)
        return _noisy(circuit, inputs, weights, basis, noise)


def _noisy(circuit: Circuit, inputs: Tensor, weights: Tensor, basis: str, noise: NoiseModel) -> Tensor:
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
    changes = [Operation(name, (qubit,)) for qubit, letter in enumerate(basis) for name in TO_Z_BASIS[letter]]
    measured = replace(circuit, operations=(*circuit.operations, *changes))
    return final_states(measured, inputs, weights).square().sum(0).T

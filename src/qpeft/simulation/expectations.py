"""Expectation values of circuits: exact, batched, differentiable in inputs and weights.

The state is two float32 tensors, real and imaginary part, of shape (2**num_qubits, tokens): qubit 0 is the most
significant bit of the first axis, tokens lie last. The backward pass recomputes the final state and walks the circuit
back with the adjoint method, so between the passes only inputs and weights are kept; both work in blocks of tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from qpeft.circuits import Circuit, Input, Weight
from qpeft.errors import SimulationError
from qpeft.simulation.kernel import runner
from qpeft.simulation.state import (
    Complex,
    angle_of,
    apply_generator,
    apply_operation,
    apply_pauli_string,
    inner_product,
    zero_state,
)

AMPLITUDES_PER_BLOCK = 2**18
"""Tokens are handled in blocks of this many amplitudes: many enough to keep torch busy, few enough to stay in cache."""


def expectations(
    circuit: Circuit, inputs: Float[Tensor, "*batch num_inputs"], weights: Float[Tensor, " num_weights"]
) -> Float[Tensor, "*batch num_observables"]:
    """Expectation value of every observable of `circuit`, for every row of `inputs`.

    Args:
        circuit: what to evaluate.
        inputs: angles in radians, one row per evaluation.
        weights: trained angles in radians, shared by all rows.

    Returns:
        Values in [-1, 1] in the order of `circuit.observables`, differentiable once in `inputs` and in `weights`.

    Raises:
        SimulationError: a shape does not fit the circuit, or inputs and weights differ in device or type.
    """
    if inputs.ndim < 1 or inputs.shape[-1] != circuit.num_inputs:
        raise SimulationError(
            f"The circuit reads {circuit.num_inputs} input angle(s), so inputs must end in an axis of that size; "
            f"got shape {tuple(inputs.shape)}."
        )
    if weights.shape != (circuit.num_weights,):
        raise SimulationError(f"The circuit has {circuit.num_weights} weight(s); got shape {tuple(weights.shape)}.")
    if inputs.device != weights.device:
        raise SimulationError(f"inputs are on {inputs.device}, weights on {weights.device}; move one of them.")
    flat = inputs.reshape(inputs.shape[:-1].numel(), circuit.num_inputs)
    values: Tensor = _Expectations.apply(circuit, flat.float().contiguous(), weights.float().contiguous())
    return values.reshape(*inputs.shape[:-1], circuit.num_observables).to(inputs.dtype)


class _Expectations(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, circuit: Circuit, inputs: Tensor, weights: Tensor) -> Tensor:
        ctx.circuit = circuit
        ctx.save_for_backward(inputs, weights)
        if inputs.device.type == "cpu":
            return runner.values(circuit, inputs, weights)
        blocks = [_measure(circuit, _final_state(circuit, block, weights)) for block in _blocks(circuit, inputs)]
        return torch.cat(blocks)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, Tensor]:
        inputs, weights = ctx.saved_tensors
        circuit: Circuit = ctx.circuit
        if inputs.device.type == "cpu":
            return None, *runner.gradients(circuit, inputs, weights, grad.contiguous())
        input_grads, weight_grad = [], torch.zeros_like(weights)
        for block, block_grad in zip(_blocks(circuit, inputs), _blocks(circuit, grad), strict=True):
            input_grad, block_weight_grad = _adjoint(circuit, block, weights, block_grad)
            input_grads.append(input_grad)
            weight_grad += block_weight_grad
        return None, torch.cat(input_grads), weight_grad


def _blocks(circuit: Circuit, rows: Tensor) -> tuple[Tensor, ...]:
    blocks: tuple[Tensor, ...] = rows.split(max(1, AMPLITUDES_PER_BLOCK >> circuit.num_qubits))
    return blocks


def _final_state(circuit: Circuit, inputs: Tensor, weights: Tensor) -> Complex:
    state = zero_state(circuit.num_qubits, len(inputs), like=inputs)
    for operation in circuit.operations:
        state = apply_operation(state, operation, angle_of(operation, inputs, weights))
    return state


def _measure(circuit: Circuit, state: Complex) -> Tensor:
    return torch.stack([inner_product(state, apply_pauli_string(state, p))[0] for p in circuit.observables], dim=1)


def _adjoint(circuit: Circuit, inputs: Tensor, weights: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Vector-Jacobian product for one block: d<O>/d(angle) = Im <costate| G |state>, for U = exp(-i angle G / 2)."""
    state = _final_state(circuit, inputs, weights)
    costate = (torch.zeros_like(state[0]), torch.zeros_like(state[1]))
    for column, observable in enumerate(circuit.observables):
        real, imag = apply_pauli_string(state, observable)
        costate = (costate[0] + grad[:, column] * real, costate[1] + grad[:, column] * imag)
    input_grad, weight_grad = torch.zeros_like(inputs), torch.zeros_like(weights)
    for operation in reversed(circuit.operations):
        angle = angle_of(operation, inputs, weights)
        if isinstance(operation.angle, (Input, Weight)):
            slope = inner_product(costate, apply_generator(state, operation))[1]
            if isinstance(operation.angle, Input):
                input_grad[:, operation.angle.index] += slope
            else:
                weight_grad[operation.angle.index] += slope.sum()
        state = apply_operation(state, operation, angle, inverse=True)
        costate = apply_operation(costate, operation, angle, inverse=True)
    return input_grad, weight_grad

"""`expectations` as an operator of torch, so that torch.compile and torch.export take it into their graphs as it is.

Without it, compilers would try to trace the simulator's own machinery. Operators take no circuits as arguments, only
tensors, numbers and text: a circuit goes by a key that depends on nothing but what it computes.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor

from qpeft.circuits import Circuit
from qpeft.simulation import expectations

_CIRCUITS: dict[str, Circuit] = {}


def register(circuit: Circuit) -> str:
    """The key of a circuit for `traced_expectations`, the same in every process."""
    key = hashlib.sha256(repr(circuit).encode()).hexdigest()[:16]
    _CIRCUITS[key] = circuit
    return key


def traced_expectations(key: str, angles: Tensor, weights: Tensor) -> Tensor:
    """`expectations` of the circuit that is registered as `key`, with the same shapes."""
    values: Tensor = torch.ops.qpeft.expectations(key, angles, weights)
    return values


def _values(key: str, angles: Tensor, weights: Tensor) -> Tensor:
    return expectations(_CIRCUITS[key], angles, weights)


def _values_shape(key: str, angles: Tensor, weights: Tensor) -> Tensor:  # noqa: ARG001
    return angles.new_empty((*angles.shape[:-1], _CIRCUITS[key].num_observables))


def _gradients(key: str, angles: Tensor, weights: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
    with torch.enable_grad():
        leaves = angles.detach().requires_grad_(), weights.detach().requires_grad_()
        return torch.autograd.grad(expectations(_CIRCUITS[key], *leaves), leaves, grad)


def _gradients_shape(key: str, angles: Tensor, weights: Tensor, grad: Tensor) -> tuple[Tensor, ...]:  # noqa: ARG001
    return torch.empty_like(angles), torch.empty_like(weights)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    ctx.key, *tensors = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return None, *torch.ops.qpeft.expectation_gradients(ctx.key, *ctx.saved_tensors, grad)


_operator = torch.library.custom_op(
    "qpeft::expectations", _values, mutates_args=(), schema="(str key, Tensor angles, Tensor weights) -> Tensor"
)
_operator.register_fake(_values_shape)
_operator.register_autograd(_backward, setup_context=_remember)

# Not a `custom_op`: within those, autograd records nothing, and it is autograd that gives the gradients here.
torch.library.define(
    "qpeft::expectation_gradients", "(str key, Tensor angles, Tensor weights, Tensor grad) -> (Tensor, Tensor)"
)
torch.library.impl("qpeft::expectation_gradients", "default", _gradients)
torch.library.register_fake("qpeft::expectation_gradients", _gradients_shape)

"""Derivatives of values from a device, with their standard errors: what the backward pass uses, and on its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from qpeft.circuits import Circuit
from qpeft.devices.calls import DeviceCall
from qpeft.devices.gradients import AbstractGradient, GradientChoice, Wanted, find_gradient
from qpeft.devices.mitigation import AbstractMitigation
from qpeft.devices.protocol import ONLY_CALL, AbstractDevice, CallKey, Runner, run_now
from qpeft.devices.rows import Rows, check_rows
from qpeft.errors import GradientError


class DeviceGradients(NamedTuple):
    """Gradients of sum(values * grad), and how far they are off.

    Attributes:
        inputs: in the shape of the inputs.
        weights: in the shape of the weights.
        input_errors, weight_errors: standard errors of both, in the same shapes: from the shots of this pass, and for
            random directions from their spread. NaN for a single direction of SPSA, which has no spread. The noise of
            `grad` itself is not in them, nor is a bias of the gradient's method.
    """

    inputs: Tensor
    weights: Tensor
    input_errors: Tensor
    weight_errors: Tensor


OnGradients: TypeAlias = Callable[[DeviceGradients], None]
"""What a backward pass tells its gradients to, inputs as (rows, num_inputs), weights as (num_circuits, num_weights)."""


def device_gradients(
    circuit: Circuit,
    inputs: Float[Tensor, "*batch num_inputs"],
    weights: Float[Tensor, "*circuits num_weights"],
    grad: Float[Tensor, "*batch num_observables"],
    device: AbstractDevice,
    shots: int | None,
    *,
    gradient: GradientChoice,
    by_inputs: bool = True,
    by_weights: bool = True,
    runner: Runner = run_now,
    key: CallKey = ONLY_CALL,
    mitigation: AbstractMitigation | None = None,
) -> DeviceGradients:
    """Gradients of sum(values * grad) for the values of `device_expectations`, without sending for the values.

    Args:
        circuit, inputs, weights, device, shots, runner, key, mitigation: as for `device_expectations`.
        grad: from above, one number per value. Rows of zeros send nothing and have gradients of zero.
        gradient: as for `device_expectations`, but not None.
        by_inputs, by_weights: which gradients are wanted; the other is zero.

    Raises:
        GradientError: an unknown gradient or none, or `grad` does not have the shape of the values.
        SimulationError, ShotsError, DeviceError: as `device_expectations`.
    """
    check_rows(circuit, inputs, weights)
    found = find_gradient(gradient)
    if found is None:
        raise GradientError("device_gradients needs a gradient, such as 'parameter-shift'; got None.")
    if grad.shape != (*inputs.shape[:-1], circuit.num_observables):
        raise GradientError(
            f"grad has one number per value, so shape {(*inputs.shape[:-1], circuit.num_observables)}; "
            f"got {tuple(grad.shape)}."
        )
    flat, upper = (a.reshape(inputs.shape[:-1].numel(), a.shape[-1]) for a in (inputs, grad))
    call = DeviceCall(circuit, device, shots, runner, key, mitigation)
    groups = weights if weights.ndim == 2 else weights[None]
    products = flat_gradients(call, found, flat, groups, upper, Wanted(by_inputs, by_weights))
    shapes = inputs.shape, weights.shape, inputs.shape, weights.shape
    return DeviceGradients(*(one.reshape(shape) for one, shape in zip(products, shapes, strict=True)))


@torch.no_grad()
def flat_gradients(
    call: DeviceCall, gradient: AbstractGradient, inputs: Tensor, weights: Tensor, grad: Tensor, wanted: Wanted
) -> DeviceGradients:
    """`device_gradients` for inputs (rows, num_inputs) and weights (num_circuits, num_weights), unchecked."""
    call = replace(call, key=replace(call.key, part="gradient"))
    # Not `grad.abs().sum(1) > 0`, which would drop rows with NaN without a word.
    matters = (grad != 0).any(1)
    found = DeviceGradients(*(torch.zeros_like(one) for one in (inputs, weights, inputs, weights)))
    if matters.any():
        rows = Rows.side_by_side(inputs, weights)[matters]
        products = gradient.products(call, rows, grad[matters], wanted)
        found.inputs[matters] = products.inputs.to(inputs)
        found.input_errors[matters] = products.input_errors.to(inputs)
        found.weights.copy_(products.weights)
        found.weight_errors.copy_(products.weight_errors)
    return found

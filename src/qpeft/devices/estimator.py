"""Expectation values of circuits through a device: batched, with standard errors, and differentiable on request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from qpeft.circuits import Circuit
from qpeft.devices.calls import DeviceCall, Rows, check_rows, num_bases, num_versions
from qpeft.devices.gradients import (
    GRADIENTS,
    AbstractGradient,
    DeviceGradients,
    GradientChoice,
    WantedGradients,
    find_gradient,
)
from qpeft.devices.mitigation import AbstractMitigation
from qpeft.devices.protocol import ONLY_CALL, AbstractDevice, CallKey, Runner, run_now
from qpeft.errors import GradientError
from qpeft.simulation.autograd import FirstOrder

OnGradients: TypeAlias = Callable[[DeviceGradients], None]
"""Is given a backward pass's gradients, inputs as (rows, num_inputs), weights as (num_circuits, num_weights)."""


class DeviceValues(NamedTuple):
    """Means over the shots, and how far they are off.

    Attributes:
        values: (*batch, num_observables), in [-1, 1], or beyond where readout is corrected or errors are mitigated.
        standard_errors: sqrt((1 - value**2) / (shots - 1)), same shape; 1 for a single shot, 0 for exact values; with
            mitigation what becomes of that.
    """

    values: Tensor
    standard_errors: Tensor


def device_expectations(
    circuit: Circuit,
    inputs: Float[Tensor, "*batch num_inputs"],
    weights: Float[Tensor, "*circuits num_weights"],
    device: AbstractDevice,
    shots: int | None,
    *,
    gradient: GradientChoice = None,
    runner: Runner = run_now,
    key: CallKey = ONLY_CALL,
    on_gradients: OnGradients | None = None,
    mitigation: AbstractMitigation | None = None,
) -> DeviceValues:
    """Return the expectation value of every observable of `circuit`, for every row of `inputs`, as `device` has it.

    Args:
        circuit: what to evaluate. Observables are measured together where they agree on every qubit; for X and Y the
            circuit gets gates (H; SDG and H) at its end. Equal circuits of one call are sent once.
        inputs: angles in radians, one row per evaluation.
        weights: trained angles in radians, shared by all rows. Or (num_circuits, num_weights), with inputs
            (..., num_circuits, num_inputs), for circuits side by side that differ in their weights: one call for all.
        device: where it runs.
        shots: per circuit sent; None for exact values, from devices that can.
        gradient: 'parameter-shift', 'spsa', 'simulated' or an object of `devices.gradients`; None has none. Rows whose
            values have no influence on what is differentiated send nothing.
        runner: through which everything is sent, forward and backward; by default it stores nothing.
        key: names this call to the runner, and the random directions of 'spsa': calls of equal key have equal ones.
        on_gradients: is given the gradients of each backward pass with their standard errors, rows flattened.
        mitigation: of errors, `ReadoutInversion()` or `ZeroNoise()`, in the values and in what gradients are made of.

    Returns:
        Values in the order of `circuit.observables` and the type of `inputs`, with their standard errors, which have no
        gradient. Values of one circuit are correlated.

    Raises:
        SimulationError: a shape that does not fit the circuit, NaN or infinite angles.
        GradientError: an unknown gradient; in the backward pass, if `gradient` is None, and for second derivatives.
        ShotsError, DeviceError: what the device or the runner does not do, or a mitigation that the device spoils.
    """
    check_rows(circuit, inputs, weights)
    call = DeviceCall(circuit, device, shots, runner, key, mitigation)
    # Rows of a batch one after the other: with circuits side by side, their rows take turns.
    flat = inputs.reshape(inputs.shape[:-1].numel(), circuit.num_inputs)
    groups = weights if weights.ndim == 2 else weights[None]
    values, errors = _DeviceExpectations.apply(call, find_gradient(gradient), on_gradients, flat, groups)
    shape = (*inputs.shape[:-1], circuit.num_observables)
    return DeviceValues(values.reshape(shape), errors.reshape(shape))


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
    """Return gradients of sum(values * grad) for the values of `device_expectations`, without sending for the values.

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
    products = _gradients(call, found, flat, groups, upper, WantedGradients(by_inputs, by_weights))
    shapes = inputs.shape, weights.shape, inputs.shape, weights.shape
    return DeviceGradients(*(one.reshape(shape) for one, shape in zip(products, shapes, strict=True)))


def forward_circuits(circuit: Circuit, num_rows: int = 1, *, mitigation: AbstractMitigation | None = None) -> int:
    """Return how many circuits evaluating `num_rows` rows of inputs sends, if none of them are equal.

    Not in it: `mitigation.num_calibration_circuits`, sent with the first call and not with the others.

    Args:
        circuit: what is evaluated.
        num_rows: rows of inputs.
        mitigation: as for `device_expectations`.
    """
    return num_rows * num_bases(circuit) * num_versions(mitigation)


def backward_circuits(
    circuit: Circuit,
    gradient: GradientChoice,
    num_rows: int = 1,
    *,
    inputs: bool = True,
    weights: bool = True,
    mitigation: AbstractMitigation | None = None,
) -> int:
    """Return how many circuits differentiating `num_rows` rows sends, if none are equal and every row has influence.

    Args:
        circuit: what is evaluated.
        gradient: as for `device_expectations`; None sends nothing, since it raises.
        num_rows: rows of inputs; for circuits side by side, of each of them, and the answer is that for one.
        inputs, weights: whether their derivatives are asked for.
        mitigation: as for `device_expectations`.

    Raises: GradientError if the gradient is unknown.
    """
    found = find_gradient(gradient)
    if found is None:
        return 0
    return found.circuits(circuit, WantedGradients(inputs, weights), num_rows) * num_versions(mitigation)


@torch.no_grad()
def _gradients(
    call: DeviceCall, gradient: AbstractGradient, inputs: Tensor, weights: Tensor, grad: Tensor, wanted: WantedGradients
) -> DeviceGradients:
    """Do the work of `device_gradients` for inputs (rows, num_inputs) and weights (num_circuits, num_weights)."""
    # A part of its own, so that a journal tells it from the call's values.
    call = replace(call, key=replace(call.key, part="gradient"))
    # Not `grad.abs().sum(1) > 0`, which would drop rows with NaN without a word.
    matters = (grad != 0).any(1)
    found = DeviceGradients(*(torch.zeros_like(one) for one in (inputs, weights, inputs, weights)))
    if matters.any():
        # Rows without influence are not sent: with a mask over tokens they are most of them.
        rows = Rows.side_by_side(inputs, weights)[matters]
        products = gradient.products(call, rows, grad[matters], wanted)
        found.inputs[matters] = products.inputs.to(inputs)
        found.input_errors[matters] = products.input_errors.to(inputs)
        found.weights.copy_(products.weights)
        found.weight_errors.copy_(products.weight_errors)
    return found


class _DeviceExpectations(FirstOrder):
    @staticmethod
    def forward(
        call: DeviceCall,
        _gradient: AbstractGradient | None,
        _on_gradients: OnGradients | None,
        inputs: Tensor,
        weights: Tensor,
    ) -> tuple[Tensor, Tensor]:
        estimates = call.estimates(Rows.side_by_side(inputs, weights).bind(call.circuit))
        found, errors = (inputs.new_tensor(array) for array in estimates)
        return found, errors

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.call, ctx.gradient, ctx.on_gradients, *angles = inputs
        ctx.save_for_backward(*angles)
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _errors_grad: Tensor) -> tuple[None, None, None, Tensor, Tensor]:
        # The first three arguments of `forward` are no tensors.
        wanted = WantedGradients(*ctx.needs_input_grad[3:])
        if ctx.gradient is None:
            # The error names all choices with their prices, as the choice is about money.
            costs = []
            for name, other in GRADIENTS.items():
                one, these = (
                    num_versions(ctx.call.mitigation) * other.circuits(ctx.call.circuit, wanted, count)
                    for count in (1, len(grad))
                )
                cost = f"{one} circuits per input, {these:,} for these" if one else "no circuits"
                costs.append(f"gradient={name!r} ({cost})")
            raise GradientError(
                f"Values from {ctx.call.device.capabilities().name} have no gradient unless it is chosen. Pass "
                f"{', '.join(costs)}; or evaluate under torch.no_grad()."
            )
        input_grad, weight_grad = _Products.apply(
            ctx.call, ctx.gradient, ctx.on_gradients, wanted, grad, *ctx.saved_tensors
        )
        return None, None, None, input_grad, weight_grad


class _Products(FirstOrder):
    """The backward pass as a Function of its own, so that its own backward pass can refuse second derivatives."""

    @staticmethod
    def forward(
        call: DeviceCall,
        gradient: AbstractGradient,
        on_gradients: OnGradients | None,
        wanted: WantedGradients,
        grad: Tensor,
        inputs: Tensor,
        weights: Tensor,
    ) -> tuple[Tensor, Tensor]:
        found = _gradients(call, gradient, inputs, weights, grad, wanted)
        if on_gradients is not None:
            on_gradients(found)
        return found.inputs, found.weights

    @staticmethod
    def setup_context(_ctx: Any, _inputs: tuple[Any, ...], _output: tuple[Tensor, Tensor]) -> None:
        pass

    @staticmethod
    def backward(_: Any, *__: Tensor) -> None:
        raise GradientError(
            "Values from a device have first derivatives only. For second ones, difference the gradients, or use "
            "qpeft.simulation.expectations at shifted angles."
        )

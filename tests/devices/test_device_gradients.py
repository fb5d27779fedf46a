"""Gradients asked for by name: those of the backward pass, with their standard errors."""

import math

import pytest
import torch
from torch.testing import assert_close

from qpeft.circuits import ansatz
from qpeft.devices import LocalDevice, ParameterShift, Spsa, device_expectations, device_gradients
from qpeft.errors import GradientError

CIRCUIT = ansatz.ring_crz(2)
GRADIENTS = ["parameter-shift", ParameterShift(), Spsa(num_directions=3), "simulated"]


def problem():
    """Two circuits side by side, three rows each, in float32."""
    generator = torch.Generator().manual_seed(0)
    shapes = (3, 2, 2), (2, CIRCUIT.num_weights), (3, 2, 2)
    inputs, weights, grad = (torch.randn(shape, generator=generator) for shape in shapes)
    grad[1, 0] = 0
    return inputs.requires_grad_(), weights.requires_grad_(), grad


@pytest.mark.parametrize("gradient", GRADIENTS, ids=str)
def test_they_are_those_of_the_backward_pass(gradient):
    inputs, weights, grad = problem()
    told = []
    device = LocalDevice(seed=4)
    values = device_expectations(
        CIRCUIT, inputs, weights, device, 40, gradient=gradient, on_gradients=told.append
    ).values
    by_inputs, by_weights = torch.autograd.grad(values, (inputs, weights), grad)
    device = LocalDevice(seed=4)
    device_expectations(CIRCUIT, inputs, weights, device, 40)
    found = device_gradients(CIRCUIT, inputs, weights, grad, device, 40, gradient=gradient)
    assert torch.equal(found.inputs, by_inputs)
    assert torch.equal(found.weights, by_weights)
    assert len(told) == 1
    for one, other in zip(found, told[0], strict=True):
        assert torch.equal(one, other.reshape(one.shape))
        assert one.dtype == torch.float32
        assert not one.requires_grad
    assert found.input_errors.shape == inputs.shape
    assert found.weight_errors.shape == weights.shape
    assert not found.input_errors[1, 0].any()  # without influence
    assert found.input_errors[0].any() == (gradient != "simulated")


@pytest.mark.parametrize("gradient", GRADIENTS, ids=str)
def test_what_is_not_wanted_is_zero_and_certain(gradient):
    inputs, weights, grad = problem()
    options = {"gradient": gradient, "by_weights": False}
    found = device_gradients(CIRCUIT, inputs, weights, grad, LocalDevice(), 40, **options)
    assert found.inputs.any()
    if gradient != "simulated":
        assert not found.weights.any()
    assert not found.weight_errors.any()


def test_exact_values_have_exact_gradients():
    inputs, weights, grad = problem()
    found = device_gradients(CIRCUIT, inputs, weights, grad, LocalDevice(), None, gradient="parameter-shift")
    assert not found.input_errors.any()
    assert not found.weight_errors.any()


def test_one_shot_counts_as_a_standard_error_of_one():
    circuit = ansatz.ring_cz(1)
    inputs, weights = torch.tensor([[0.3]]), torch.zeros(circuit.num_weights)
    found = device_gradients(circuit, inputs, weights, torch.ones(1, 1), LocalDevice(), 1, gradient="parameter-shift")
    # Two circuits of coefficient 1/2.
    assert_close(found.input_errors, torch.full((1, 1), math.sqrt(0.5)))


def test_one_direction_of_spsa_has_an_unknown_standard_error():
    inputs, weights, grad = problem()
    found = device_gradients(CIRCUIT, inputs, weights, grad, LocalDevice(), 40, gradient="spsa", by_weights=False)
    assert found.input_errors[0].isnan().all()
    assert not found.weight_errors.any()


def test_a_gradient_must_be_chosen_and_grad_must_fit():
    inputs, weights, grad = problem()
    with pytest.raises(GradientError, match="needs a gradient"):
        device_gradients(CIRCUIT, inputs, weights, grad, LocalDevice(), 40, gradient=None)
    with pytest.raises(GradientError, match=r"shape \(3, 2, 2\); got \(2, 2\)"):
        device_gradients(CIRCUIT, inputs, weights, grad[0], LocalDevice(), 40, gradient="spsa")

"""Gradients from samples: unbiased, with honest standard errors, over many repeats at many shots."""

import itertools
import math

import dense_oracle
import pytest
import torch
from torch.testing import assert_close
from z_scores import assert_standard_normal, assert_unbiased

from qpeft.circuits import Circuit, Input, Operation, Weight, ansatz
from qpeft.devices import LocalDevice, Spsa, device_gradients
from qpeft.simulation import expectations

TWO_TERMS = Circuit(
    2,
    (
        Operation("RY", (0,), Input(0)),
        Operation("RXX", (0, 1), Weight(0)),
        Operation("RY", (1,), Input(1)),
        Operation("RX", (0,), Weight(1)),
        Operation("RY", (1,), Input(0)),
    ),
    ("ZI", "IZ", "YX"),
)
FOUR_TERMS = Circuit(
    2,
    (
        Operation("H", (0,)),
        Operation("CRY", (0, 1), Input(0)),
        Operation("CRX", (1, 0), Weight(0)),
        Operation("CRY", (0, 1), Input(1)),
        Operation("RY", (0,), Weight(1)),
    ),
    ("ZI", "IZ", "YX"),
)


def problem(circuit, num_circuits, rows=1, seed=0):
    """Circuits side by side, each an independent problem: inputs, weights, gradient from above, exact gradients."""
    generator = torch.Generator().manual_seed(seed)
    shapes = (
        (rows, num_circuits, circuit.num_inputs),
        (num_circuits, circuit.num_weights),
        (rows, num_circuits, circuit.num_observables),
    )
    inputs, weights, grad = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return inputs, weights, grad, *exact_gradients(circuit, inputs, weights, grad)


def exact_gradients(circuit, inputs, weights, grad):
    leaves = inputs.clone().requires_grad_(), weights.clone().requires_grad_()
    values = torch.stack([expectations(circuit, leaves[0][:, i], one) for i, one in enumerate(leaves[1])], dim=1)
    return torch.autograd.grad(values, leaves, grad)


@pytest.mark.parametrize("circuit", [TWO_TERMS, FOUR_TERMS], ids=["two terms", "four terms"])
def test_parameter_shift_is_unbiased_with_honest_standard_errors(circuit):
    *angles_and_grad, by_inputs, by_weights = problem(circuit, num_circuits=100, rows=2)
    found = device_gradients(circuit, *angles_and_grad, LocalDevice(seed=3), 2000, gradient="parameter-shift")
    assert_standard_normal(found.inputs, by_inputs, found.input_errors)
    assert_standard_normal(found.weights, by_weights, found.weight_errors)


def enumerated(circuit, row, weights, grad, step):
    """What SPSA returns on average over all signs, from dense states."""
    angles = torch.cat([row, weights])
    total = torch.zeros_like(angles)
    directions = list(itertools.product((-1.0, 1.0), repeat=len(angles)))
    for direction in directions:
        signs = torch.tensor(direction, dtype=torch.float64)
        up, down = (
            torch.from_numpy(dense_oracle.expectations(circuit, moved[None, : len(row)], moved[len(row) :]))[0]
            for moved in (angles + step * signs, angles - step * signs)
        )
        total += ((up - down) @ grad) / (2 * step) * signs
    return total / len(directions)


def test_spsa_is_unbiased_up_to_the_square_of_its_step():
    inputs, weights, grad, by_inputs, by_weights = (one[0] for one in problem(FOUR_TERMS, num_circuits=1))
    exact = torch.cat([by_inputs[0], by_weights])
    biases = {step: enumerated(FOUR_TERMS, inputs[0], weights, grad[0], step) - exact for step in (0.1, 0.2, 0.8)}
    assert_close(biases[0.2], 4 * biases[0.1], rtol=0.1, atol=1e-4)
    repeats = 300
    # Told apart by 1e-9, because equal circuits would be sent once.
    rows = inputs + 1e-9 * torch.arange(repeats, dtype=torch.float64)[:, None]
    upper = grad.expand(repeats, -1)
    for step in (0.1, 0.8):
        found = device_gradients(
            FOUR_TERMS, rows, weights, upper, LocalDevice(seed=2), 1000, gradient=Spsa(num_directions=4, step=step)
        ).inputs
        assert_unbiased(found, (exact + biases[step])[:2])
    # The bias of a step of 0.8 is large enough to be seen.
    assert ((found.mean(0) - exact[:2]) / (found.std(0) / repeats**0.5)).abs().max() > 5


def test_standard_errors_of_spsa_are_honest():
    # With four angles there are eight directions but for their sign, so many of these are the same.
    *angles_and_grad, by_inputs, by_weights = problem(FOUR_TERMS, num_circuits=50, rows=2, seed=5)
    spsa = Spsa(num_directions=32, step=0.05)
    found = device_gradients(FOUR_TERMS, *angles_and_grad, LocalDevice(seed=2), 2000, gradient=spsa)
    # A row's directions are its own, but its angles share them: one z per row.
    assert_standard_normal(found.inputs[..., 0], by_inputs[..., 0], found.input_errors[..., 0])
    assert_standard_normal(found.weights[:, 1], by_weights[:, 1], found.weight_errors[:, 1])


def test_errors_of_observables_of_one_circuit_are_correlated_and_counted_so():
    # After H and CNOT the signs of ZI and IZ are equal: their sum is as certain as nothing, their difference is exact.
    circuit = Circuit(2, (Operation("RX", (0,), Input(0)), Operation("H", (0,)), Operation("CNOT", (0, 1))))
    inputs, weights = torch.zeros(1, 1, dtype=torch.float64), torch.zeros(0, dtype=torch.float64)
    errors = [
        device_gradients(
            circuit, inputs, weights, torch.tensor([grad]).double(), LocalDevice(), 1001, gradient="parameter-shift"
        ).input_errors.item()
        for grad in ([1.0, 1.0], [1.0, -1.0])
    ]
    # Two circuits, each with coefficient 1/2 and a sum of signs of standard deviation 2.
    assert errors == [pytest.approx(2 / math.sqrt(2 * 1000), rel=0.05), 0.0]


def test_rows_that_share_their_circuits_share_their_errors():
    circuit = ansatz.ring_crz(2)
    inputs, weights, grad, *_ = (one[:, 0] if one.ndim == 3 else one[0] for one in problem(circuit, 1, rows=1))
    once, twice = (
        device_gradients(
            circuit, inputs.expand(rows, -1), weights, grad.expand(rows, -1), LocalDevice(), 100,
            gradient="parameter-shift",
        )
        for rows in (1, 2)
    )  # fmt: skip
    assert_close(twice.weights, 2 * once.weights)
    assert_close(twice.weight_errors, 2 * once.weight_errors)
    assert_close(twice.input_errors, once.input_errors.expand(2, -1))

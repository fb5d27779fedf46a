"""Gradients through a device against finite differences of dense matrices, and their means over many repeats."""

import math

import dense_oracle
import pytest
import torch
from circuit_strategies import build, circuits
from hypothesis import given, settings
from torch.testing import assert_close

from qpeft.circuits import GATES, Circuit, Input, Operation, Weight, ansatz
from qpeft.devices import CallKey, LocalDevice, Spsa, device_expectations, device_gradients
from qpeft.devices.gradients import shift_rule
from qpeft.errors import GradientError
from qpeft.simulation import expectations
from qpeft.simulation.noise import Damping, EdgeNoise, NoiseModel, QubitNoise, ReadoutError, noisy_expectations

PARAMETRISED = [name for name, gate in GATES.items() if gate.is_parametrised]
SMALL = Circuit(
    2,
    (
        Operation("RY", (0,), Input(0)),
        Operation("CRX", (0, 1), Weight(0)),
        Operation("RY", (1,), Input(0)),
        Operation("RXX", (0, 1), Weight(1)),
    ),
    ("ZI", "IZ", "YX"),
)
ALL_INPUTS = Circuit(
    2,
    tuple(
        Operation(operation.gate_name, operation.qubits, Input(index))
        for operation, index in zip(SMALL.operations, (0, 1, 0, 2), strict=True)
    ),
    SMALL.observables,
)
NOISE = NoiseModel.uniform(
    3,
    qubit=QubitNoise(0.02, Damping(0.05, 0.1), ReadoutError(0.05, 0.12)),
    edge=EdgeNoise(0.1, (Damping(0.1, 0.0), Damping(0.0, 0.1))),
)


def problem(circuit, rows=2, seed=0, dtype=torch.float64):
    """Inputs, weights and a gradient from above."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((rows, circuit.num_inputs), (circuit.num_weights,), (rows, circuit.num_observables))
    inputs, weights, grad = (torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes)
    return inputs.requires_grad_(), weights.requires_grad_(), grad


def products(circuit, inputs, weights, grad, device, shots, **options):
    """Gradients of sum(values * grad) through a device."""
    values = device_expectations(circuit, inputs, weights, device, shots, **options).values
    return torch.autograd.grad(values, (inputs, weights), grad)


@pytest.mark.parametrize("name", PARAMETRISED)
def test_rules_have_four_terms_for_controlled_rotations_and_two_for_all_others(name):
    assert len(shift_rule(name)) == (4 if name in ("CRX", "CRY", "CRZ") else 2)


def test_rules_are_those_of_the_literature():
    # Mitarai et al., arXiv:1803.00745, and Anselmetti et al., arXiv:2104.05695, equation (8).
    two = {round(shift.amount, 9): shift.coefficient for shift in shift_rule("RY")}
    assert two == {round(math.pi / 2, 9): pytest.approx(0.5), round(-math.pi / 2, 9): pytest.approx(-0.5)}
    large, small = (math.sqrt(2) + 1) / (4 * math.sqrt(2)), (math.sqrt(2) - 1) / (4 * math.sqrt(2))
    four = sorted((shift.amount, shift.coefficient) for shift in shift_rule("CRZ"))
    expected = [(-1.5, small), (-0.5, -large), (0.5, large), (1.5, -small)]
    assert four == [(pytest.approx(turns * math.pi), pytest.approx(value)) for turns, value in expected]


@pytest.mark.parametrize("gradient", ["parameter-shift", "simulated"])
@pytest.mark.parametrize("name", ansatz.ANSATZE)
def test_gradients_of_ready_made_circuits_are_those_of_the_simulator(name, gradient):
    circuit = ansatz.ANSATZE[name](3, depth=2, reupload=True)
    inputs, weights, grad = problem(circuit)
    exact = torch.autograd.grad(expectations(circuit, inputs, weights), (inputs, weights), grad)
    found = products(circuit, inputs, weights, grad, LocalDevice(), None, gradient=gradient)
    for one, other in zip(found, exact, strict=True):
        assert_close(one, other, atol=1e-9, rtol=0)


def test_gradients_of_float32_angles_are_float32_and_close():
    circuit = ansatz.ring_crz(3, depth=2)
    inputs, weights, grad = problem(circuit, dtype=torch.float32)
    exact = torch.autograd.grad(expectations(circuit, inputs, weights), (inputs, weights), grad)
    for one, other in zip(
        products(circuit, inputs, weights, grad, LocalDevice(), None, gradient="parameter-shift"), exact, strict=True
    ):
        assert one.dtype == torch.float32
        assert_close(one, other, atol=1e-5, rtol=0)


@settings(max_examples=30)
@given(circuits(max_qubits=3, max_operations=12))
def test_parameter_shift_of_any_circuit_equals_finite_differences(data):
    circuit = build(data)
    inputs, weights, grad = problem(circuit)
    expected = dense_oracle.gradients(circuit, *(tensor.detach() for tensor in (inputs, weights, grad)))
    found = products(circuit, inputs, weights, grad, LocalDevice(), None, gradient="parameter-shift")
    for one, other in zip(found, expected, strict=True):
        assert_close(one, torch.from_numpy(other), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", PARAMETRISED)
def test_parameter_shift_through_every_gate_equals_finite_differences(name):
    qubits = tuple(range(GATES[name].num_qubits))
    before = tuple(Operation("RX", (qubit,), 0.7 + qubit) for qubit in range(2))
    after = tuple(Operation("RY", (qubit,), 0.4 - qubit) for qubit in range(2))
    gates = (Operation(name, qubits, Input(0)), *after, Operation(name, qubits[::-1], Weight(0)))
    circuit = Circuit(2, (*before, *gates, *after), ("ZI", "IZ", "XY"))
    inputs, weights, grad = problem(circuit)
    expected = dense_oracle.gradients(circuit, *(tensor.detach() for tensor in (inputs, weights, grad)))
    found = products(circuit, inputs, weights, grad, LocalDevice(), None, gradient="parameter-shift")
    for one, other in zip(found, expected, strict=True):
        assert_close(one, torch.from_numpy(other), atol=1e-6, rtol=0)
        assert other.any()


def test_parameter_shift_is_exact_on_a_noisy_device_too():
    circuit = ansatz.ring_crz(3)
    inputs, weights, grad = problem(circuit, rows=1)
    exact = torch.autograd.grad(noisy_expectations(circuit, inputs, weights, NOISE), (inputs, weights), grad)
    found = products(circuit, inputs, weights, grad, LocalDevice(noise=NOISE), None, gradient="parameter-shift")
    for one, other in zip(found, exact, strict=True):
        assert_close(one, other, atol=1e-5, rtol=0)


def test_simulated_gradients_are_those_of_a_device_without_noise():
    circuit = ansatz.ring_cz(3)
    inputs, weights, grad = problem(circuit)
    exact = torch.autograd.grad(expectations(circuit, inputs, weights), (inputs, weights), grad)
    found = products(circuit, inputs, weights, grad, LocalDevice(noise=NOISE), 50, gradient="simulated")
    assert all(torch.equal(one, other) for one, other in zip(found, exact, strict=True))


def repeated(num_repeats):
    """One row of angles so often, as inputs, told apart by 1e-9 so that all are sent; and its exact gradient."""
    row = torch.tensor([[0.8, -1.3, 0.5]], dtype=torch.float64)
    inputs = (row + 1e-9 * torch.arange(num_repeats, dtype=torch.float64)[:, None]).requires_grad_()
    weights, grad = torch.zeros(0, dtype=torch.float64, requires_grad=True), torch.tensor([[0.9, -0.6, 1.2]]).double()
    exact, _ = dense_oracle.gradients(ALL_INPUTS, row, weights.detach(), grad)
    return inputs, weights, grad.expand(num_repeats, 3), torch.from_numpy(exact)[0]


def test_parameter_shift_with_shots_is_unbiased_with_the_variance_of_its_terms():
    repeats, shots = 500, 40
    *angles_and_grad, exact = repeated(repeats)
    device = LocalDevice(seed=11)
    found, _, errors, _ = device_gradients(ALL_INPUTS, *angles_and_grad, device, shots, gradient="parameter-shift")
    z = (found.mean(0) - exact) / (found.std(0) / repeats**0.5)
    assert z.abs().max() < 4
    # A sample variance of 500 is off by 6 %; single ones from 40 shots by less, since all that is random in them are
    # the probabilities of few outcomes.
    expected = sampled_variance(*angles_and_grad, shots)
    assert_close(found.var(0), expected, rtol=0.25, atol=0)
    assert_close(errors.square().mean(0), expected, rtol=0.02, atol=0)


def sampled_variance(inputs, _weights, grad, shots):
    """Of parameter-shift estimates, from dense states: squared coefficients times the variance of weighted signs."""
    variances = torch.zeros(3, dtype=torch.float64)
    for place, operation in enumerate(ALL_INPUTS.operations):
        for shift in shift_rule(operation.gate_name):
            # The shifted angle becomes an input of its own, so that this occurrence moves alone.
            moved = Operation(operation.gate_name, operation.qubits, Input(3))
            operations = (*ALL_INPUTS.operations[:place], moved, *ALL_INPUTS.operations[place + 1 :])
            row = [*inputs[0].tolist(), inputs[0, operation.angle.index].item() + shift.amount]
            # ZI and IZ share a basis, so their signs are correlated by ZZ; YX is sampled apart.
            full = Circuit(2, operations, ("ZI", "IZ", "YX", "ZZ"))
            z0, z1, yx, zz = dense_oracle.expectations(full, [row], [])[0].tolist()
            a, b, c = grad[0].tolist()
            variance = a * a * (1 - z0 * z0) + b * b * (1 - z1 * z1) + 2 * a * b * (zz - z0 * z1)
            variances[operation.angle.index] += shift.coefficient**2 * (variance + c * c * (1 - yx * yx)) / shots
    return variances


def test_spsa_is_unbiased_over_its_directions():
    inputs, weights, grad = problem(SMALL, seed=2)
    device = LocalDevice()
    exact = torch.cat([g.flatten() for g in products(SMALL, inputs, weights, grad, device, None, gradient="simulated")])
    estimates = torch.stack(
        [
            torch.cat([g.flatten() for g in products(SMALL, inputs, weights, grad, device, None, gradient=gradient)])
            for gradient in (Spsa(num_directions=16, step=1e-3, seed=seed) for seed in range(60))
        ]
    )
    z = (estimates.mean(0) - exact) / (estimates.std(0) / 60**0.5)
    assert z.abs().max() < 4
    assert (estimates.std(0) > 0.01).all()  # else there is nothing to average


def test_spsa_with_shots_is_unbiased():
    *angles_and_grad, exact = repeated(1000)
    spsa = Spsa(num_directions=2, step=0.05)
    found, _ = products(ALL_INPUTS, *angles_and_grad, LocalDevice(seed=5), 1000, gradient=spsa)
    z = (found.mean(0) - exact) / (found.std(0) / 1000**0.5)
    assert z.abs().max() < 4


def test_spsa_directions_follow_seed_and_key_and_differ_between_rows():
    circuit = Circuit(3, tuple(Operation("RY", (qubit,), Input(qubit)) for qubit in range(3)), ("ZZZ",))
    inputs = torch.tensor([[0.3, -0.7, 1.1]] * 6).requires_grad_()

    def found(seed, key):
        grad = torch.ones(6, 1)
        return products(circuit, inputs, torch.zeros(0, requires_grad=True), grad, LocalDevice(), None,
                        gradient=Spsa(seed=seed), key=key)[0]  # fmt: skip

    first = found(0, CallKey("a"))
    assert torch.equal(first, found(0, CallKey("a")))
    for seed, key in ((1, CallKey("a")), (0, CallKey("b")), (0, CallKey("a", step=1)), (0, CallKey("a", call=1))):
        assert not torch.equal(first, found(seed, key))
    assert len({tuple(row) for row in first.tolist()}) > 1


@pytest.mark.parametrize(
    "options",
    [
        {"num_directions": 0},
        {"num_directions": 1.5},
        {"num_directions": True},
        {"step": 0.0},
        {"step": float("nan")},
        {"step": "0.1"},
    ],
)
def test_spsa_without_direction_or_step_is_refused(options):
    with pytest.raises(GradientError, match="whole number of directions, at least one, and a positive step"):
        Spsa(**options)


@pytest.mark.parametrize("gradient", ["parameter-shift", "spsa", "simulated"])
def test_a_circuit_without_angles_has_gradients_of_zero_size(gradient, runner):
    circuit = Circuit(1, (Operation("H", (0,)),))
    inputs, weights, grad = problem(circuit)
    found = products(circuit, inputs, weights, grad, LocalDevice(), None, gradient=gradient, runner=runner)
    assert [tuple(one.shape) for one in found] == [(2, 0), (0,)]
    assert len(runner.batches) == 1


def test_second_derivatives_are_refused():
    circuit = ansatz.ring_cz(2)
    inputs, weights, _ = problem(circuit)
    values = device_expectations(circuit, inputs, weights, LocalDevice(), None, gradient="parameter-shift").values
    (slopes,) = torch.autograd.grad(values.sum(), inputs, create_graph=True)
    with pytest.raises(GradientError, match="first derivatives only"):
        slopes.sum().backward()

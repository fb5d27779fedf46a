"""Values through a device: right, with honest standard errors, and as many circuits as announced."""

import dense_oracle
import numpy as np
import pytest
import torch
from torch.testing import assert_close

from qpeft.circuits import Circuit, Input, Operation, Weight, ansatz
from qpeft.devices import CallKey, LocalDevice, backward_circuits, device_expectations, forward_circuits, run_now
from qpeft.devices.calls import DeviceCall
from qpeft.errors import DeviceError, GradientError, ShotsError, SimulationError

MIXED = ("ZI", "IZ", "XY", "YI", "ZZ", "II", "XX")
PAIR = (Operation("RY", (0,), Input(0)), Operation("CRY", (0, 1), Weight(0)), Operation("RX", (1,), Input(1)))


def angles(circuit, rows, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(rows, circuit.num_inputs, generator=generator, dtype=dtype)
    return inputs, torch.randn(circuit.num_weights, generator=generator, dtype=dtype)


def test_exact_values_of_any_observables_are_those_of_dense_matrices():
    circuit = Circuit(2, PAIR, MIXED)
    inputs, weights = angles(circuit, 5)
    values, errors = device_expectations(circuit, inputs, weights, LocalDevice(), None)
    assert_close(values, torch.from_numpy(dense_oracle.expectations(circuit, inputs, weights)), atol=1e-9, rtol=0)
    assert not errors.any()


def test_standard_errors_are_the_spread_of_the_values():
    circuit = Circuit(2, PAIR, MIXED)
    inputs, weights = angles(circuit, 1)
    exact = dense_oracle.expectations(circuit, inputs, weights)[0]
    # Told apart by 1e-9, because equal circuits would be sent once.
    rows = inputs + 1e-9 * torch.arange(1000, dtype=torch.float64)[:, None]
    values, errors = device_expectations(circuit, rows, weights, LocalDevice(seed=1), 200)
    random = [column for column, observable in enumerate(MIXED) if observable != "II"]
    z = (values.mean(0) - torch.from_numpy(exact))[random] / (values.std(0)[random] / 1000**0.5)
    assert z.abs().max() < 4
    assert_close(errors.mean(0), values.std(0), rtol=0.15, atol=1e-7)


def test_one_shot_has_a_standard_error_of_one():
    circuit = ansatz.ring_cz(2)
    values, errors = device_expectations(circuit, *angles(circuit, 3), LocalDevice(), 1)
    assert (values.abs() == 1).all()
    assert (errors == 1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes_and_types_follow_the_inputs(dtype):
    circuit = ansatz.ring_cz(3)
    inputs, weights = angles(circuit, 10, dtype=dtype)
    values, errors = device_expectations(circuit, inputs.reshape(2, 5, 3), weights, LocalDevice(), 100)
    assert values.shape == errors.shape == (2, 5, 3)
    assert values.dtype == errors.dtype == dtype
    flat = device_expectations(circuit, inputs, weights, LocalDevice(), 100).values
    assert torch.equal(values.reshape(10, 3), flat)


def test_no_rows_send_nothing(runner):
    circuit = ansatz.ring_cz(2)
    inputs, weights = angles(circuit, 0)
    values = device_expectations(circuit, inputs.requires_grad_(), weights, LocalDevice(), 10, runner=runner).values
    assert values.shape == (0, 2)
    assert runner.batches == []


@pytest.mark.parametrize("observables", [(), MIXED], ids=["one basis", "several bases"])
@pytest.mark.parametrize("wanted", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("gradient", ["parameter-shift", "spsa", "simulated"])
def test_as_many_circuits_are_sent_as_were_announced(runner, gradient, wanted, observables):
    circuit = Circuit(2, ansatz.ring_crz(2, depth=2).operations, observables)
    inputs, weights = angles(circuit, 3)
    inputs.requires_grad_(wanted[0])
    weights.requires_grad_(wanted[1])
    values = device_expectations(circuit, inputs, weights, LocalDevice(), None, gradient=gradient, runner=runner).values
    assert runner.num_circuits == forward_circuits(circuit, 3) == 3 * (4 if observables else 1)
    values.square().sum().backward()
    announced = backward_circuits(circuit, gradient, 3, inputs=wanted[0], weights=wanted[1])
    assert runner.num_circuits - forward_circuits(circuit, 3) == announced
    assert (announced > 0) == (gradient != "simulated")


def test_the_announced_number_is_that_of_the_rules():
    # Per layer: 2 inputs and 4 RY of two terms, 4 CRZ of four terms.
    assert backward_circuits(ansatz.ring_crz(2, depth=2), "parameter-shift") == 2 * (2 * 2 + 4 * 2 + 4 * 4)
    assert backward_circuits(ansatz.ring_crz(2, depth=2), "parameter-shift", 5, weights=False) == 5 * 2 * 2 * 2
    assert backward_circuits(ansatz.ring_crz(2), None) == 0


def test_equal_circuits_of_one_call_are_sent_once_and_share_their_result(runner):
    circuit = ansatz.ring_crz(2)
    inputs, weights = angles(circuit, 2)
    repeated = inputs[[0, 1, 0, 0]].requires_grad_()
    device = LocalDevice()
    values = device_expectations(
        circuit, repeated, weights, device, 50, gradient="parameter-shift", runner=runner
    ).values
    assert runner.num_circuits == 2
    assert torch.equal(values[0], values[2])
    (values * torch.randn(4, 2)).sum().backward()
    assert len(runner.batches[1]) == backward_circuits(circuit, "parameter-shift", 2, weights=False)


def test_rows_without_influence_send_nothing(runner):
    circuit = ansatz.ring_cz(2)
    inputs, weights = angles(circuit, 4)
    inputs.requires_grad_()
    device = LocalDevice()
    values = device_expectations(
        circuit, inputs, weights, device, None, gradient="parameter-shift", runner=runner
    ).values
    values[1].sum().backward()
    assert len(runner.batches[1]) == backward_circuits(circuit, "parameter-shift", 1, weights=False)
    assert inputs.grad[[0, 2, 3]].eq(0).all()
    assert inputs.grad[1].ne(0).any()


@pytest.mark.parametrize("gradient", ["parameter-shift", "spsa", "simulated"])
def test_nan_from_above_is_not_dropped(gradient):
    circuit = ansatz.ring_cz(2)
    inputs, weights = angles(circuit, 2)
    inputs.requires_grad_()
    values = device_expectations(circuit, inputs, weights, LocalDevice(), None, gradient=gradient).values
    values.backward(torch.tensor([[0.0, 0.0], [float("nan"), 0.0]], dtype=torch.float64))
    assert inputs.grad[1].isnan().any()


def test_the_runner_gets_the_key_and_the_part(runner):
    circuit = ansatz.ring_cz(2)
    inputs, weights = angles(circuit, 2)
    key = CallKey("layers.3.v_proj", step=7, call=2)
    values = device_expectations(
        circuit, inputs, weights.requires_grad_(), LocalDevice(), 10, gradient="spsa", runner=runner, key=key
    ).values
    values.sum().backward()
    assert runner.keys == [key, CallKey("layers.3.v_proj", step=7, call=2, part="gradient")]


def loses_the_last(device, circuits, shots, *, key):
    return run_now(device, circuits, shots, key=key)[:-1]


def test_a_runner_that_returns_too_little_is_an_error():
    circuit = ansatz.ring_cz(2)
    with pytest.raises(DeviceError, match="given 3 circuits and returned 2"):
        device_expectations(circuit, *angles(circuit, 3), LocalDevice(), 10, runner=loses_the_last)


def test_without_a_gradient_the_backward_pass_says_what_to_pass_and_what_it_costs():
    circuit = ansatz.ring_crz(2)
    inputs, weights = angles(circuit, 3)
    values = device_expectations(circuit, inputs.requires_grad_(), weights, LocalDevice(), 10).values
    with pytest.raises(
        GradientError,
        match=r"local.*'parameter-shift' \(4 circuits per input, 12 for these\).*'simulated' \(no circuits\)",
    ):
        values.sum().backward()


def test_an_unknown_gradient_is_refused_before_anything_is_sent(runner):
    circuit = ansatz.ring_cz(2)
    with pytest.raises(GradientError, match="did you mean 'parameter-shift'"):
        device_expectations(circuit, *angles(circuit, 1), LocalDevice(), 10, gradient="parameter_shift", runner=runner)
    assert runner.batches == []


def test_what_cannot_be_evaluated_is_refused():
    circuit = ansatz.ring_cz(3)
    inputs, weights = angles(circuit, 2)
    with pytest.raises(ShotsError, match="got 0"):
        device_expectations(circuit, inputs, weights, LocalDevice(), 0)
    with pytest.raises(DeviceError, match="local has 2 qubits; the circuit needs 3"):
        device_expectations(circuit, inputs, weights, LocalDevice(num_qubits=2), 10)
    with pytest.raises(SimulationError, match="axis of that size"):
        device_expectations(circuit, inputs[:, :2], weights, LocalDevice(), 10)
    with pytest.raises(SimulationError, match="finite"):
        device_expectations(circuit, inputs / 0, weights, LocalDevice(), 10)


def test_values_slightly_beyond_one_from_corrected_readout_have_a_standard_error_of_zero():
    call = DeviceCall(ansatz.ring_cz(1), LocalDevice(), 100)
    assert call.standard_errors(np.array([[1.02, 0.6]])).tolist() == [[0.0, pytest.approx(0.8 / 99**0.5)]]

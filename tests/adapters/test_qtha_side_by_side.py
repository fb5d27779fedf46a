"""Circuits side by side in one layer: one call of the runner for all of them, each with its own weights."""

import pytest
import torch
from torch.testing import assert_close

import qpeft
from qpeft.circuits import ansatz
from qpeft.devices import LocalDevice, Spsa, device_expectations, device_gradients, run_now
from qpeft.errors import SimulationError
from qpeft.simulation import expectations

CIRCUIT = ansatz.ring_crz(2)


class Recorder:
    """A runner that remembers keys and sizes of calls."""

    def __init__(self):
        self.calls = []

    def __call__(self, device, circuits, shots, *, key):
        self.calls.append((key.module, key.part, len(circuits)))
        return run_now(device, circuits, shots, key=key)


def problem(num_circuits=3, rows=4):
    """Angles (rows, circuits, inputs), weights (circuits, weights), gradient from above."""
    generator = torch.Generator().manual_seed(0)
    shapes = (rows, num_circuits, 2), (num_circuits, CIRCUIT.num_weights), (rows, num_circuits, 2)
    inputs, weights, grad = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return inputs.requires_grad_(), weights.requires_grad_(), grad


def simulated(inputs, weights, grad):
    """Values and gradients of the simulator, circuit by circuit."""
    values = torch.stack([expectations(CIRCUIT, inputs[:, i], weights[i]) for i in range(len(weights))], dim=1)
    return values, *torch.autograd.grad(values, (inputs, weights), grad)


@pytest.mark.parametrize("gradient", ["parameter-shift", "simulated"])
@pytest.mark.parametrize("without_influence", [[], [0, 5, 7]], ids=["all rows", "some rows"])
def test_each_circuit_has_its_own_weights_in_values_and_gradients(gradient, without_influence):
    inputs, weights, grad = problem()
    grad.flatten(0, 1)[without_influence] = 0
    values = device_expectations(CIRCUIT, inputs, weights, LocalDevice(), None, gradient=gradient).values
    found = values, *torch.autograd.grad(values, (inputs, weights), grad)
    for one, other in zip(found, simulated(inputs, weights, grad), strict=True):
        assert_close(one, other, atol=1e-9, rtol=0)


def test_spsa_moves_each_circuits_own_weights():
    inputs, weights, grad = problem(num_circuits=2, rows=1)
    exact = simulated(inputs, weights, grad)[1:]
    spsa = Spsa(num_directions=400, step=1e-3)
    found = device_gradients(CIRCUIT, inputs, weights, grad, LocalDevice(), None, gradient=spsa)
    for one, other, error in zip(found[:2], exact, found[2:], strict=True):
        assert ((one - other) / error).abs().max() < 4
        assert torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1] > 0.95


def test_one_circuit_side_by_side_is_the_same_as_weights_without_an_axis():
    inputs, weights, _ = problem(num_circuits=1)
    beside = device_expectations(CIRCUIT, inputs, weights, LocalDevice(), 50).values
    alone = device_expectations(CIRCUIT, inputs[:, 0], weights[0], LocalDevice(), 50).values
    assert torch.equal(beside[:, 0], alone)


@pytest.mark.parametrize("shape", [(4, 2, 2), (3, 2), (2,)])
def test_inputs_for_another_number_of_circuits_are_refused(shape):
    _, weights, _ = problem()
    inputs = torch.zeros(shape, dtype=torch.float64)
    if shape == (3, 2):
        assert device_expectations(CIRCUIT, inputs, weights, LocalDevice(), None).values.shape == (3, 2)
        return
    with pytest.raises(SimulationError, match="3 circuits side by side"):
        device_expectations(CIRCUIT, inputs, weights, LocalDevice(), None)


def test_a_layer_makes_one_call_forward_and_one_backward(one_linear):
    from peft import get_peft_model

    torch.manual_seed(0)
    model = get_peft_model(one_linear(), qpeft.QthaConfig(rank=6, num_qubits=2, target_modules=["layer"]))
    torch.nn.init.normal_(model.base_model.model.layer.qtha_branch["default"].up.operator.cores[-1])
    recorder = Recorder()
    qpeft.set_quantum_device(model, LocalDevice(), shots=None, gradient="parameter-shift", runner=recorder)
    model(torch.randn(5, 12)).sum().backward()
    name = "base_model.model.layer.default"
    # Per row 2 inputs of two terms, 4 CRZ of four and 4 RY of two: 28 circuits; and 3 circuits side by side.
    assert recorder.calls == [(name, "values", 5 * 3), (name, "gradient", 5 * 3 * 28)]

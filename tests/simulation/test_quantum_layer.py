"""QuantumLayer: a circuit as a module of torch, against PennyLane, dense matrices and finite differences."""

import copy
import math
import pickle

import numpy as np
import pennylane as qml
import pytest
import torch
from torch.testing import assert_close

import qpeft
from qpeft import QuantumLayer
from qpeft.circuits import Circuit, Input, Operation, Weight, ansatz
from qpeft.devices import LocalDevice
from qpeft.errors import AdapterError, ShotsError, SimulationError
from qpeft.simulation import expectations

CIRCUIT = ansatz.ring_crz(3, depth=2)


def uniform(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 6 - 3


def bell_like():
    """A circuit without inputs whose outcomes are correlated."""
    operations = [Operation("RY", (0,), Weight(0)), Operation("CNOT", (0, 1)), Operation("RX", (2,), Weight(1))]
    return Circuit(3, operations)


@pytest.fixture
def layer():
    return QuantumLayer(CIRCUIT, init="uniform", generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("shape", [(), (5,), (2, 4), (0,)])
def test_values_are_those_of_the_bare_simulator_for_any_batch(layer, shape):
    inputs = uniform(*shape, 3)
    assert torch.equal(layer(inputs), expectations(CIRCUIT, inputs, layer.weights[0]))


def test_circuits_side_by_side_have_their_own_inputs_and_weights():
    layer = QuantumLayer(CIRCUIT, num_circuits=2, init="uniform")
    inputs = uniform(7, 6)
    expected = [expectations(CIRCUIT, inputs[:, 3 * k : 3 * k + 3], layer.weights[k]) for k in (0, 1)]
    assert_close(layer(inputs), torch.cat(expected, dim=-1))


def test_values_and_gradients_are_those_of_pennylane_s_torch_layer():
    layer = QuantumLayer(ansatz.ring_crz(3), init="uniform", dtype=torch.float64)

    @qml.qnode(qml.device("default.qubit", wires=3), interface="torch")
    def theirs(inputs, weights):
        for operation in layer.circuit.operations:
            angle = operation.angle
            value = () if angle is None else (inputs[..., angle.index],) if isinstance(angle, Input) else ()
            value = value or (() if angle is None else (weights[angle.index],))
            getattr(qml, operation.gate_name)(*value, wires=operation.qubits)
        return [qml.expval(qml.Z(qubit)) for qubit in range(3)]

    other = qml.qnn.TorchLayer(theirs, {"weights": layer.circuit.num_weights})
    with torch.no_grad():
        other.weights.copy_(layer.weights[0])
    inputs, grad = uniform(4, 3).double(), uniform(4, 3, seed=1).double()
    ours, found = inputs.clone().requires_grad_(), inputs.clone().requires_grad_()
    assert_close(layer(ours), other(found).double(), atol=1e-6, rtol=0)
    layer(ours).backward(grad)
    other(found).backward(grad.to(other(found).dtype))
    assert_close(ours.grad, found.grad, atol=1e-6, rtol=0)
    assert_close(layer.weights.grad[0], other.weights.grad.double(), atol=1e-5, rtol=0)


def test_a_layer_learns():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), QuantumLayer(CIRCUIT), torch.nn.Linear(3, 1))
    x = torch.randn(64, 2)
    y = (x[:, :1] * x[:, 1:]).sign()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    losses = []
    for _ in range(60):
        loss = (model(x) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("num_circuits", [1, 2])
def test_probabilities_are_those_of_the_state(num_circuits):
    circuit = ansatz.ring_crz(3, depth=2)
    layer = QuantumLayer(circuit, num_circuits=num_circuits, init="uniform", dtype=torch.float64)
    inputs = uniform(5, 3 * num_circuits).double()

    @qml.qnode(qml.device("default.qubit", wires=3))
    def theirs(inputs, weights):
        for operation in circuit.operations:
            angle = operation.angle
            source = inputs if isinstance(angle, Input) else weights
            value = () if angle is None else (float(source[angle.index]),)
            getattr(qml, operation.gate_name)(*value, wires=operation.qubits)
        return qml.probs(wires=range(3))

    found = layer.probabilities(inputs)
    assert found.shape == (5, num_circuits, 8)
    for row in range(5):
        for number in range(num_circuits):
            expected = theirs(inputs[row, 3 * number : 3 * number + 3].numpy(), layer.weights[number].detach().numpy())
            np.testing.assert_allclose(found[row, number].detach().numpy(), expected, atol=1e-10)


def test_probabilities_have_the_gradient_of_finite_differences(layer):
    layer = layer.double()
    inputs, wanted = uniform(1, 3).double(), uniform(8, seed=2).double()

    def loss():
        return (layer.probabilities(inputs)[0, 0] * wanted).sum()

    loss().backward()
    step = 1e-6
    with torch.no_grad():
        layer.weights[0, 1] += step
        up = loss().item()
        layer.weights[0, 1] -= 2 * step
        down = loss().item()
    assert layer.weights.grad[0, 1].item() == pytest.approx((up - down) / (2 * step), abs=1e-7)


def test_samples_are_distributed_as_the_probabilities_and_named_by_their_seed(layer):
    inputs = uniform(2, 3)
    bits = layer.samples(inputs, shots=20_000)
    assert bits.shape == (2, 1, 20_000, 3)
    frequencies = torch.nn.functional.one_hot((bits * torch.tensor([4, 2, 1])).sum(-1), 8).double().mean(-2)
    exact = layer.probabilities(inputs).double()
    assert ((frequencies - exact).abs() < 5 * (exact * (1 - exact) / 20_000).sqrt() + 1e-12).all()
    # Any part of the shots is as good as another: outcomes do not come sorted.
    assert_close(bits[:, :, :10_000].double().mean(-2), bits[:, :, 10_000:].double().mean(-2), atol=0.03, rtol=0)
    assert torch.equal(bits, layer.samples(inputs, shots=20_000))
    assert not torch.equal(bits, layer.samples(inputs, shots=20_000, seed=1))


def test_a_circuit_without_inputs_needs_none_and_its_bits_are_correlated():
    layer = QuantumLayer(bell_like(), init=[math.pi / 2, 0.3])
    assert_close(layer(), torch.tensor([0.0, 0.0, math.cos(0.3)]))
    assert layer.probabilities().shape == (1, 8)
    bits = layer.samples(shots=50)[0]
    assert torch.equal(bits[:, 0], bits[:, 1])
    assert 0 < bits[:, 0].sum() < 50


@pytest.mark.parametrize(
    ("init", "check"),
    [
        ("zeros", lambda w: (w == 0).all()),
        ("near_zero", lambda w: 0 < w.abs().max() < 1),
        ("uniform", lambda w: 1 < w.abs().max() <= math.pi),
        (torch.nn.init.ones_, lambda w: (w == 1).all()),
        (torch.arange(CIRCUIT.num_weights) / 10, lambda w: torch.equal(w[0], w[1])),
    ],
)
def test_weights_start_as_init_says(init, check):
    assert check(QuantumLayer(CIRCUIT, num_circuits=2, init=init).weights)


def test_a_layer_is_saved_copied_and_pickled_with_its_weights(layer):
    inputs, expected = uniform(4, 3), layer(uniform(4, 3))
    fresh = QuantumLayer(CIRCUIT)
    fresh.load_state_dict(layer.state_dict())
    for other in (fresh, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(inputs), expected)
    assert list(layer.state_dict()) == ["weights"]
    assert not list(QuantumLayer(CIRCUIT, trainable=False).parameters())


def test_half_precision_is_computed_in_single(layer):
    inputs = uniform(6, 3).bfloat16()
    values = layer(inputs)
    assert values.dtype == torch.bfloat16
    assert_close(values.float(), layer(inputs.float()), atol=4e-3, rtol=0)


def test_torch_func_maps_and_differentiates_a_layer(layer):
    weights, inputs = dict(layer.named_parameters()), uniform(5, 3)

    def values(weights, row):
        return torch.func.functional_call(layer, weights, row)

    assert_close(torch.func.vmap(values, in_dims=(None, 0))(weights, inputs), layer(inputs))
    many = {"weights": torch.stack([layer.weights, layer.weights + 0.1]).detach()}
    mapped = torch.func.vmap(values, in_dims=(0, None))(many, inputs)
    assert_close(mapped[1], values({"weights": many["weights"][1]}, inputs))
    jacobian = torch.func.jacrev(values, argnums=1)(weights, inputs[0])
    exact = copy.deepcopy(layer).double()
    for column in range(3):
        shift = torch.zeros(3, dtype=torch.float64)
        shift[column] = 1e-6
        with torch.no_grad():
            difference = (exact(inputs[0] + shift) - exact(inputs[0] - shift)) / 2e-6
        assert_close(jacobian[:, column].double(), difference, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_compilers_take_a_layer_into_their_graph(layer):
    compiled, inputs = torch.compile(layer, fullgraph=True, backend="aot_eager"), uniform(6, 3)
    assert_close(compiled(inputs), layer(inputs))


def test_a_device_evaluates_a_layer_alone_or_in_a_model(layer):
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), layer)
    inputs, direct = uniform(4, 2), model(uniform(4, 2))
    evaluator = qpeft.set_quantum_device(model, LocalDevice(), shots=None, gradient="parameter-shift")
    assert_close(model(inputs), direct, atol=1e-5, rtol=0)
    model(inputs).sum().backward()
    on_device, layer.weights.grad = layer.weights.grad.clone(), None
    assert list(evaluator.records) == ["1"]
    qpeft.set_quantum_device(model, None)
    model(inputs).sum().backward()
    assert_close(on_device, layer.weights.grad, atol=1e-5, rtol=1e-4)

    qpeft.set_quantum_device(layer, LocalDevice(seed=2), shots=100)
    with torch.no_grad():
        sampled = layer(uniform(4, 3))
    assert torch.equal((sampled * 50).round(), sampled * 50)  # means of 100 signs
    assert copy.deepcopy(layer).has_evaluator is False
    with pytest.raises(SimulationError, match=r"samples\(\) are the simulator's"):
        layer.samples(uniform(4, 3), shots=2)
    with pytest.raises(AdapterError, match=r"No layer with circuits is called 'other'\. They are: QuantumLayer"):
        qpeft.set_quantum_device(layer, LocalDevice(), layers=["other"])


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: QuantumLayer("ring"), SimulationError, "takes a Circuit; got str"),
        (lambda: QuantumLayer(CIRCUIT, num_circuits=0), SimulationError, "num_circuits must be at least 1; got 0"),
        (lambda: QuantumLayer(CIRCUIT, init="random"), SimulationError, "'near_zero', 'uniform' or 'zeros'.*'random'"),
        (lambda: QuantumLayer(CIRCUIT, init=[0.1, 0.2]), SimulationError, r"init has the shape \(2,\)"),
        (lambda: QuantumLayer(CIRCUIT)(uniform(4, 2)), SimulationError, r"\(\.\.\., 3\).*shape \(4, 2\)"),
        (lambda: QuantumLayer(CIRCUIT)(None), SimulationError, "got none"),
        (lambda: QuantumLayer(CIRCUIT)(torch.ones(4, 3, dtype=torch.int64)), SimulationError, "real numbers.*int64"),
        (lambda: QuantumLayer(CIRCUIT)(uniform(4, 3) * 1j), SimulationError, "real numbers.*complex64"),
        (lambda: QuantumLayer(CIRCUIT)(uniform(4, 3) * math.nan), SimulationError, "NaN or infinite"),
        (lambda: QuantumLayer(CIRCUIT).samples(uniform(4, 3), shots=0), ShotsError, "at least 1"),
        (lambda: QuantumLayer(ansatz.ring_crz(13)).probabilities(uniform(1, 13)), SimulationError, "up to 12 qubits"),
    ],
)
def test_what_a_layer_cannot_take_is_said(call, error, text):
    with pytest.raises(error, match=text):
        call()

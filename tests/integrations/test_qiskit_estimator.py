"""Our simulator as Qiskit's estimator: against StatevectorEstimator, finite differences and Qiskit Machine Learning."""

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector
from qiskit.circuit.library import UnitaryGate, real_amplitudes, zz_feature_map
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import Pauli, SparsePauliOp, random_unitary
from qiskit_machine_learning.connectors import TorchConnector
from qiskit_machine_learning.neural_networks import EstimatorQNN

from qpeft.errors import CircuitError
from qpeft.integrations import qiskit as estimators
from qpeft.integrations.qiskit import Estimator
from qpeft.integrations.qiskit_gradient import AdjointEstimatorGradient


def network_parts(num_qubits=3):
    """A feature map whose angles are products of parameters, an ansatz, and Z of every qubit."""
    data, ansatz = zz_feature_map(num_qubits, reps=1), real_amplitudes(num_qubits, reps=1)
    circuit = data.compose(ansatz)
    observables = [SparsePauliOp.from_sparse_list([("Z", [q], 1.0)], num_qubits) for q in range(num_qubits)]
    return circuit, observables, data.parameters, ansatz.parameters


def network(estimator, gradient=None):
    circuit, observables, inputs, weights = network_parts()
    return EstimatorQNN(
        circuit=circuit,
        estimator=estimator,
        observables=observables,
        input_params=inputs,
        weight_params=weights,
        input_gradients=True,
        gradient=gradient,
        default_precision=0.0,
    )


def ours(**options):
    estimator = Estimator(**options)
    return network(estimator, AdjointEstimatorGradient(estimator))


def test_values_of_arrays_of_observables_and_parameters_are_broadcast_as_qiskit_does():
    circuit, *_ = network_parts()
    circuit.append(UnitaryGate(random_unitary(8, seed=3)), [2, 0, 1])
    observables = [["ZIX"], [SparsePauliOp(["XYZ", "IIZ"], [0.5, -2.0])], [{"ZXI": 1.5, "YZZ": 0.5}], [Pauli("YYI")]]
    values = np.random.default_rng(0).normal(size=(5, circuit.num_parameters))
    pubs = [(circuit, observables, values), (circuit, "ZZZ", values[0]), (QuantumCircuit(3), ["IIZ", "XII"])]
    found = Estimator(dtype=torch.float64).run(pubs).result()
    expected = StatevectorEstimator().run(pubs).result()
    for one, other in zip(found, expected, strict=True):
        assert one.data.evs.shape == one.data.stds.shape == other.data.evs.shape
        np.testing.assert_allclose(one.data.evs, other.data.evs, atol=1e-10)
    single = Estimator().run(pubs).result()[0].data.evs
    np.testing.assert_allclose(single, expected[0].data.evs, atol=2e-5)


def test_projectors_are_sums_of_pauli_matrices():
    """Which Qiskit's own estimator does not take."""
    circuit = QuantumCircuit(2)
    circuit.ry(0.7, 0)
    circuit.ry(1.9, 1)
    found = Estimator(dtype=torch.float64).run([(circuit, ["I0", "1I", "+r", "10"])]).result()[0].data.evs
    zero, one = np.cos(0.35) ** 2, np.sin(0.95) ** 2
    np.testing.assert_allclose(found, [zero, one, (1 + np.sin(1.9)) / 4, zero * one], atol=1e-12)


def test_200_random_circuits_have_the_values_of_qiskit():
    generator = np.random.default_rng(5)
    x, pubs = ParameterVector("x", 4), []
    for _ in range(200):
        circuit = QuantumCircuit(3)
        for _ in range(6):
            angle = generator.choice([x[0], 2 * x[1] + 0.3, x[2] * x[3], x[0].sin(), generator.normal()])
            places = [int(place) for place in generator.permutation(3)[:2]]
            match generator.integers(6):
                case 0:
                    circuit.rx(angle, places[0])
                case 1:
                    circuit.u(angle, 0.3, x[1], places[0])
                case 2:
                    circuit.cp(angle, *places)
                case 3:
                    circuit.rzx(angle, *places)
                case 4:
                    circuit.h(places[0])
                case 5:
                    circuit.iswap(*places)
        values = generator.normal(size=circuit.num_parameters)
        pubs.append((circuit, ["ZII", "XYI", "ZZX"], values))
    found, expected = (e.run(pubs).result() for e in (Estimator(dtype=torch.float64), StatevectorEstimator()))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.data.evs, other.data.evs, atol=1e-8)


def test_a_network_has_values_and_gradients_of_qiskit_s_own():
    x, w = np.random.default_rng(1).normal(size=(4, 3)), np.random.default_rng(2).normal(size=6)
    fast, slow = ours(dtype=torch.float64), network(StatevectorEstimator())
    np.testing.assert_allclose(fast.forward(x, w), slow.forward(x, w), atol=1e-8)
    for one, other in zip(fast.backward(x, w), slow.backward(x, w), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-8)


def test_a_batch_is_one_call_forwards_and_one_per_observable_backwards(monkeypatch):
    rows, evaluate = [], estimators.expectations

    def counting(circuit, inputs, weights):
        rows.append(len(inputs))
        return evaluate(circuit, inputs, weights)

    monkeypatch.setattr(estimators, "expectations", counting)
    x, w = np.ones((50, 3)), np.ones(6)
    made = ours()
    made.forward(x, w)
    assert rows == [50] * 3  # each observable is a pub, and has strings of its own
    rows.clear()
    made.backward(x, w)
    assert rows == [50] * 3


def test_a_torch_connector_trains():
    torch.manual_seed(0)
    model = TorchConnector(ours(), initial_weights=np.full(6, 0.1))
    x = torch.randn(32, 3)
    y = x[:, :1].sign().expand(-1, 3)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    losses = []
    for _ in range(15):
        loss = (model(x) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.05


def test_precision_is_the_noise_of_the_values_and_the_seed_repeats_it():
    circuit = QuantumCircuit(1)
    circuit.ry(Parameter("a"), 0)
    pub = (circuit, "Z", np.full((4000, 1), 0.7))
    noisy = [Estimator(seed=seed).run([pub], precision=0.02).result()[0].data for seed in (1, 1, 2)]
    assert np.std(noisy[0].evs) == pytest.approx(0.02, rel=0.1)
    assert np.mean(noisy[0].evs) == pytest.approx(np.cos(0.7), abs=0.002)
    assert set(noisy[0].stds) == {0.02}
    np.testing.assert_array_equal(noisy[0].evs, noisy[1].evs)
    assert not np.array_equal(noisy[0].evs, noisy[2].evs)


def test_a_circuit_that_was_changed_in_place_is_translated_anew():
    circuit, estimator = QuantumCircuit(1), Estimator()
    circuit.ry(0.3, 0)
    before = estimator.run([(circuit, "Z")]).result()[0].data.evs
    circuit.x(0)
    after = estimator.run([(circuit, "Z")]).result()[0].data.evs
    assert after == pytest.approx(-before, abs=1e-6)


def test_measurements_at_the_end_are_left_out_and_others_refused():
    circuit = QuantumCircuit(2)
    circuit.ry(0.3, 0)
    circuit.measure_all()
    assert Estimator().run([(circuit, "IZ")]).result()[0].data.evs == pytest.approx(np.cos(0.3), abs=1e-6)
    middle = QuantumCircuit(2, 1)
    middle.measure(0, 0)
    middle.h(0)
    with pytest.raises(CircuitError, match="measure has no equal here"):
        Estimator().run([(middle, "ZZ")]).result()
    again = QuantumCircuit(1)
    again.reset(0)
    with pytest.raises(CircuitError, match="reset has no equal here"):
        Estimator().run([(again, "Z")]).result()

"""Classical bottlenecks: their sizes, what they compute, and where they equal the circuit."""

import copy

import numpy as np
import pytest
import scipy.signal
import torch
from torch.testing import assert_close

import qpeft
from qpeft import QthaConfig
from qpeft.adapters.qtha.bottleneck import HilbertBottleneck, hilbert_matrix
from qpeft.adapters.qtha.branch import QthaBranch
from qpeft.adapters.qtha.config import BOTTLENECKS
from qpeft.circuits import Circuit, Operation, Weight, ansatz
from qpeft.devices import LocalDevice
from qpeft.errors import AdapterError
from qpeft.simulation import expectations

CPU = torch.device("cpu")


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 8, 12])
def test_the_hilbert_matrix_is_scipys_transform(size):
    signals = np.random.default_rng(size).normal(size=(20, size))
    expected = scipy.signal.hilbert(signals, axis=-1).imag
    assert_close(torch.from_numpy(signals).float() @ hilbert_matrix(size, CPU).T, torch.from_numpy(expected).float())


def test_amplitude_and_phase_are_those_of_a_rotating_wave():
    # One whole turn along the rank axis has amplitude 1 everywhere, and its phase turns with it.
    angles = 2 * torch.pi * torch.arange(8) / 8 + 0.3
    features = HilbertBottleneck(8)(angles.cos())
    assert_close(features, torch.cat([torch.ones(8), angles.cos()]), atol=2e-4, rtol=0)


def test_the_hilbert_twin_has_slopes_at_zero():
    h = torch.zeros(2, 5, requires_grad=True)
    HilbertBottleneck(5)(h).sum().backward()
    assert h.grad.isfinite().all()


@pytest.mark.parametrize("bottleneck", ["sinusoid", "tanh"])
@pytest.mark.parametrize("family", ansatz.ANSATZE)
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("num_qubits", [1, 2, 4])
def test_units_have_exactly_the_circuits_number_of_parameters(bottleneck, family, depth, num_qubits):
    options = {"rank": 4, "ansatz": family, "depth": depth, "num_qubits": num_qubits}
    circuit, units = (_middle(QthaConfig(bottleneck=kind, **options)) for kind in ("circuit", bottleneck))
    assert _count(units) == _count(circuit)


def test_the_default_unit_has_four_parameters_a_channel_and_layer():
    assert _count(_middle(QthaConfig(rank=8, depth=3, bottleneck="sinusoid"))) == 4 * 8 * 3


def test_units_for_an_ansatz_whose_parameters_do_not_divide_are_refused(monkeypatch):
    def lopsided(num_qubits, *_, **__):
        return Circuit(num_qubits, (Operation("RY", (0,), Weight(0)),))

    monkeypatch.setitem(ansatz.ANSATZE, "ring_cz", lopsided)
    with pytest.raises(AdapterError, match=r"has 1 for 4 qubits and 0 inputs\. Choose another ansatz or num_qubits"):
        _middle(QthaConfig(rank=4, ansatz="ring_cz", bottleneck="sinusoid"))


def test_fresh_units_are_the_first_frequencies():
    h = torch.randn(5, 4)
    fresh = {kind: _middle(QthaConfig(rank=4, depth=2, bottleneck=kind))(h) for kind in ("sinusoid", "tanh")}
    assert_close(fresh["sinusoid"], (h.sin() + (2 * h).sin()) / 2)
    assert_close(fresh["tanh"], (h.tanh() + (2 * h).tanh()) / 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_qubits", [1, 2, 3, 6])
def test_the_closed_form_has_the_circuits_values_and_derivatives(num_qubits, dtype):
    config = QthaConfig(rank=num_qubits, ansatz="ring_cz", bottleneck="classical_form", angle_init="uniform")
    bottleneck = _middle(config).to(dtype)
    h = torch.randn(50, num_qubits, dtype=dtype, requires_grad=True)
    circuit = ansatz.ring_cz(num_qubits)
    simulated = expectations(circuit, h + torch.pi / 2, bottleneck.weights[0])
    grad = torch.randn(50, num_qubits, dtype=dtype)
    leaves = h, bottleneck.weights
    assert_close(bottleneck(h), simulated, atol=1e-6, rtol=0)
    for ours, theirs in zip(
        torch.autograd.grad(bottleneck(h), leaves, grad), torch.autograd.grad(simulated, leaves, grad), strict=True
    ):
        assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_the_closed_form_of_a_saved_circuit_is_that_circuit():
    options = {"rank": 6, "num_qubits": 3, "ansatz": "ring_cz", "input_scaling": "tanh", "angle_init": "uniform"}
    circuit, form = (_middle(QthaConfig(bottleneck=kind, **options)) for kind in ("circuit", "classical_form"))
    form.load_state_dict(circuit.state_dict())
    h = torch.randn(9, 6)
    assert_close(form(h), circuit(h), atol=1e-6, rtol=0)


@pytest.mark.parametrize("bottleneck", ["classical_form", "sinusoid"])
def test_what_is_no_circuit_is_never_put_on_a_device(adapt, bottleneck):
    with pytest.raises(AdapterError, match="has no circuit: no adapter of it has bottleneck='circuit' or"):
        qpeft.set_quantum_device(adapt(bottleneck=bottleneck, ansatz="ring_cz"), LocalDevice())


def test_further_layers_of_the_mlp_leave_the_names_of_two_as_they_were():
    names = [set(_middle(QthaConfig(rank=4, bottleneck="mlp", mlp_layers=n)).state_dict()) for n in (2, 3, 4)]
    assert names == [{"first", "second"}, {"first", "second", "inner.0"}, {"first", "second", "inner.0", "inner.1"}]


@pytest.mark.parametrize(
    "options", [*({"bottleneck": "mlp", "mlp_layers": n} for n in (2, 3, 4)), {"bottleneck": "hilbert"}]
)
def test_features_start_with_about_the_size_of_h(options):
    h = 0.577 * torch.randn(500, 8)
    assert 0.4 < _middle(QthaConfig(**options))(h).square().mean().sqrt() < 0.9


@pytest.mark.parametrize("kind", [kind for kind in BOTTLENECKS if kind != "none"])
def test_a_middle_has_as_many_features_as_it_says_and_copies_compute_the_same(kind):
    bottleneck = _middle(QthaConfig(rank=6, bottleneck=kind, ansatz="ring_cz"))
    h = torch.randn(2, 3, 6)
    features = bottleneck(h)
    assert features.shape == (2, 3, bottleneck.num_features)
    assert torch.equal(copy.deepcopy(bottleneck)(h), features)


def test_a_bare_operator_starts_with_angles_of_a_third_of_unit_variance():
    config = QthaConfig(rank=8, down="bare_mpo", up="bare_mpo")
    branch = QthaBranch(config, 2048, 2048, rank=8, scaling=1.0)
    branch.initialize(config, torch.Generator().manual_seed(0))
    down, _ = branch.effective_factors()
    h = torch.randn(2000, 2048) @ down.T
    assert h.std().item() == pytest.approx(0.577, rel=0.02)


def _middle(config):
    branch = QthaBranch(config, 12, 10, rank=config.rank, scaling=1.0)
    branch.initialize(config, torch.Generator().manual_seed(0))
    return branch.middle


def _count(module):
    return sum(weight.numel() for weight in module.parameters())

"""Gradients against formulas worked out by hand, and against PennyLane's."""

import pytest
import torch

from qpeft import QthaConfig
from qpeft.analysis.portrait import decay_per_qubit
from qpeft.analysis.random_angles import at_start, gradient_size, uniform
from qpeft.circuits import Circuit, Input, Operation, Weight, ansatz


def drawn(circuit, samples, seed=0):
    return uniform(circuit, samples, torch.Generator().manual_seed(seed))


def test_one_rotation_has_the_variance_of_a_sine():
    found = gradient_size(ansatz.ring_cz(1), drawn(ansatz.ring_cz(1), 20_000))
    assert (found.first, found.mean) == pytest.approx((1 / 2, 1 / 2), abs=0.01)


def test_the_shallow_ring_has_the_variance_of_its_formula():
    # <Z_0> = cos(w) cos(p_0) - sin(w) sin(p_0) cos(p_1) cos(p_5): squares of 5/16 by w and p_0, 1/16 by p_1 and p_5.
    circuit = ansatz.ring_cz(6)
    assert gradient_size(circuit, drawn(circuit, 20_000)).first == pytest.approx((5 + 5 + 1 + 1) / 64, rel=0.02)


def test_sizes_are_those_of_pennylane_gradients_at_the_same_angles():
    pennylane = pytest.importorskip("pennylane")
    circuit = ansatz.ring_crz(3)
    angles = drawn(circuit, 16)
    leaf = angles.clone().requires_grad_()

    @pennylane.qnode(pennylane.device("default.qubit", wires=3), interface="torch", diff_method="backprop")
    def values():
        for operation in circuit.operations:
            match operation.angle:
                case Input(index):
                    angle = leaf[:, index]
                case Weight(index):
                    angle = leaf[:, 3 + index]
            getattr(pennylane, operation.gate_name)(angle, wires=operation.qubits)
        return [pennylane.expval(pennylane.PauliZ(qubit)) for qubit in range(3)]

    rows = values()
    (first,) = torch.autograd.grad(rows[0].sum(), leaf, retain_graph=True)
    (mean,) = torch.autograd.grad(sum(rows).sum() / 3, leaf)
    found = gradient_size(circuit, angles)
    # The closing RY of qubits 1 and 2, for example, does not reach Z_0.
    reaching = first[:, 3:].abs().amax(0) > 1e-12
    assert 0 < reaching.sum() < 12
    assert found.first == pytest.approx(first[:, 3:][:, reaching].square().mean().item(), rel=1e-9)
    assert found.mean == pytest.approx(mean[:, 3:].square().mean().item(), rel=1e-9)


def test_a_value_that_no_weight_reaches_has_size_zero():
    circuit = Circuit(2, (Operation("RY", (0,), Input(0)), Operation("RY", (1,), Weight(0))), ("ZI",))
    assert gradient_size(circuit, drawn(circuit, 10)).first == 0


def test_decay_is_the_factor_of_a_geometric_series():
    assert decay_per_qubit([2, 4, 5], [3 * 0.5**2, 3 * 0.5**4, 3 * 0.5**5]) == pytest.approx(0.5)


def test_deep_circuits_lose_their_gradients_with_every_qubit_and_shallow_rings_do_not():
    def sizes(depth):
        circuits = [ansatz.ring_crz(count, depth) for count in (4, 6, 8)]
        return [gradient_size(circuit, drawn(circuit, 60)).first for circuit in circuits]

    assert decay_per_qubit([4, 6, 8], sizes(10)) < 0.7
    assert decay_per_qubit([4, 6, 8], sizes(1)) > 0.9


def test_fresh_adapters_start_where_the_config_says():
    circuit = ansatz.ring_crz(4)
    angles = at_start(circuit, QthaConfig(), 4000, torch.Generator().manual_seed(0))
    inputs, weights = angles.split([4, 16], dim=1)
    assert inputs.mean().item() == pytest.approx(torch.pi / 2, abs=0.03)
    assert inputs.var().item() == pytest.approx(1 / 3, rel=0.05)
    assert weights.std().item() == pytest.approx(0.1, rel=0.05)
    paper = at_start(circuit, QthaConfig.paper(rank=4), 4000, torch.Generator().manual_seed(0))
    assert paper[:, :4].mean().item() == pytest.approx(0, abs=0.03)
    assert paper[:, 4:].abs().max().item() == pytest.approx(torch.pi, rel=0.01)

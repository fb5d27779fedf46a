"""Circuits applied to vectors equal dense matrices, gate by gate and PennyLane's; what does not fit is refused."""

import math
import random

import numpy as np
import pytest
import torch
from dense_oracle import final_states
from torch.testing import assert_close

from qpeft.circuits import Circuit, Input, Operation, Weight
from qpeft.circuits.ansatz import cnot_chain, two_design
from qpeft.errors import GradientError, SimulationError
from qpeft.simulation import apply_circuit

FIXED = {1: ("X", "Z"), 2: ("CNOT", "CZ", "SWAP")}


def random_circuit(num_qubits, seed):
    """Thirty gates of all kinds, with weights that several gates share and angles that are numbers."""
    draw, operations = random.Random(seed), []
    for _ in range(30):
        count = draw.choice((1, 2)) if num_qubits > 1 else 1
        if draw.random() < 0.5:
            angle = draw.choice((Weight(draw.randrange(4)), draw.uniform(-7, 7)))
            operations.append(Operation("RY", (draw.randrange(num_qubits),), angle))
        else:
            operations.append(Operation(draw.choice(FIXED[count]), tuple(draw.sample(range(num_qubits), count))))
    operations.append(Operation("RY", (0,), Weight(3)))
    return Circuit(num_qubits, tuple(operations))


def dense_matrix(circuit, weights):
    """The whole matrix, column by column: the oracle's circuits start in |0...0>, so X gates come first."""
    columns = []
    for index in range(2**circuit.num_qubits):
        flips = [Operation("X", (q,)) for q in range(circuit.num_qubits) if index >> (circuit.num_qubits - 1 - q) & 1]
        prepared = Circuit(circuit.num_qubits, (*flips, *circuit.operations))
        columns.append(final_states(prepared, np.zeros((1, 0)), weights[None]).reshape(-1))
    matrix = np.stack(columns, axis=1)
    assert np.abs(matrix.imag).max() == 0
    return torch.from_numpy(matrix.real)


@pytest.mark.parametrize("num_qubits", range(1, 8))
@pytest.mark.parametrize("seed", [1, 2])
def test_vectors_meet_the_dense_matrix_of_the_circuit(num_qubits, seed):
    circuit = random_circuit(num_qubits, seed)
    weights = torch.from_numpy(np.random.default_rng(seed).normal(size=circuit.num_weights))
    vectors = torch.randn(2, 3, 2**num_qubits, dtype=torch.float64)
    expected = vectors @ dense_matrix(circuit, weights.numpy()).T
    assert_close(apply_circuit(circuit, vectors, weights), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("circuit", [random_circuit(3, 5), random_circuit(6, 6), cnot_chain(4, 3), two_design(5, 2)])
def test_gradients_equal_finite_differences(circuit):
    weights = torch.randn(circuit.num_weights, dtype=torch.float64, requires_grad=True)
    vectors = torch.randn(2, 2**circuit.num_qubits, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v, w: apply_circuit(circuit, v, w), (vectors, weights))


def test_float32_gradients_of_a_deep_circuit_keep_their_digits():
    circuit = two_design(6, 60)
    weights, grad = torch.randn(circuit.num_weights), torch.randn(3, 64)
    gradients = []
    for dtype in (torch.float32, torch.float64):
        angles = weights.detach().clone().to(dtype).requires_grad_()
        apply_circuit(circuit, torch.eye(3, 64, dtype=dtype), angles).backward(grad.to(dtype))
        gradients.append(angles.grad.double())
    assert_close(gradients[0], gradients[1], atol=2e-5, rtol=1e-4)


def test_types_are_kept_and_autocast_does_not_round():
    circuit, weights = cnot_chain(3, 2), torch.randn(6)
    vectors = torch.randn(4, 8)
    exact = apply_circuit(circuit, vectors.double(), weights.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(apply_circuit(circuit, vectors, weights), exact.float(), atol=1e-6, rtol=0)
    assert apply_circuit(circuit, vectors.bfloat16(), weights).dtype == torch.bfloat16


def test_a_circuit_without_gates_changes_nothing():
    vectors = torch.randn(3, 4, requires_grad=True)
    result = apply_circuit(Circuit(2, ()), vectors, torch.empty(0))
    assert torch.equal(result, vectors)
    result.sum().backward()
    assert torch.equal(vectors.grad, torch.ones(3, 4))


def test_a_second_derivative_is_refused():
    weights = torch.randn(2, requires_grad=True)
    value = apply_circuit(cnot_chain(2, 1), torch.eye(4), weights).square()[0, 1]
    (slope,) = torch.autograd.grad(value, weights, create_graph=True)
    with pytest.raises(GradientError, match=r"apply_circuit\(\) has first derivatives only"):
        slope.sum().backward()


@pytest.mark.parametrize(
    ("operation", "sentence"),
    [
        (Operation("H", (0,)), "got H"),
        (Operation("RX", (0,), 0.1), "got RX"),
        (Operation("CRY", (0, 1), Weight(0)), "got CRY"),
        (Operation("S", (0,)), "got S"),
        (Operation("RY", (0,), Input(0)), "without inputs"),
    ],
)
def test_other_gates_are_refused_by_name(operation, sentence):
    circuit = Circuit(2, (operation,))
    with pytest.raises(SimulationError, match=sentence):
        apply_circuit(circuit, torch.eye(4), torch.zeros(circuit.num_weights))


@pytest.mark.parametrize("shape", [(3,), (4, 2), (1, 5)])
def test_vectors_of_another_size_are_refused(shape):
    with pytest.raises(SimulationError, match=r"vectors of 4 amplitudes and 2 weight"):
        apply_circuit(cnot_chain(2, 1), torch.zeros(shape), torch.zeros(2))


def test_weights_of_another_number_are_refused():
    with pytest.raises(SimulationError, match=r"2 weight\(s\); got shapes \(4, 4\) and \(3,\)"):
        apply_circuit(cnot_chain(2, 1), torch.eye(4), torch.zeros(3))


@pytest.mark.parametrize(("num_qubits", "depth"), [(2, 1), (3, 2), (4, 1), (5, 3)])
def test_two_design_is_pennylanes_simplified_two_design(num_qubits, depth):
    pennylane = pytest.importorskip("pennylane")
    weights = np.random.default_rng(0).uniform(-math.pi, math.pi, two_design(num_qubits, depth).num_weights)
    pairs = num_qubits - 1
    layers = weights[num_qubits:].reshape(depth, pairs, 2)
    matrix = pennylane.matrix(
        pennylane.SimplifiedTwoDesign(weights[:num_qubits], layers, wires=range(num_qubits)),
        wire_order=range(num_qubits),
    )
    ours = apply_circuit(two_design(num_qubits, depth), torch.eye(2**num_qubits).double(), torch.from_numpy(weights))
    assert_close(ours, torch.from_numpy(matrix.real.T.copy()), atol=1e-12, rtol=0)


def test_probabilities_and_their_gradients_are_pennylanes():
    pennylane = pytest.importorskip("pennylane")
    circuit = cnot_chain(4, 3)

    @pennylane.qnode(pennylane.device("default.qubit", wires=4), interface="torch", diff_method="backprop")
    def probabilities(weights):
        for layer in weights.reshape(3, 4):
            for qubit in range(4):
                pennylane.RY(layer[qubit], wires=qubit)
            for qubit in range(3):
                pennylane.CNOT(wires=(qubit, qubit + 1))
        return pennylane.probs(wires=range(4))

    weights, grad = torch.randn(12, dtype=torch.float64), torch.randn(16, dtype=torch.float64)
    results = []
    for compute in (probabilities, lambda w: apply_circuit(circuit, torch.eye(16).double()[0], w).square()):
        angles = weights.clone().requires_grad_()
        values = compute(angles)
        values.backward(grad)
        results.append((values.detach(), angles.grad))
    for theirs, ours in zip(*results, strict=True):
        assert_close(ours, theirs, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("num_qubits", "depth"), [(1, 1), (1, 4), (2, 3), (7, 2), (10, 4)])
def test_circuits_have_the_weights_of_their_formulas(num_qubits, depth):
    assert cnot_chain(num_qubits, depth).num_weights == num_qubits * depth
    assert two_design(num_qubits, depth).num_weights == (2 * depth + 1) * num_qubits - 2 * depth


@pytest.mark.parametrize(
    ("vectors", "weights", "sentence"),
    [
        (torch.eye(4).long(), torch.ones(2), "vectors must be real floating-point numbers; got torch.int64"),
        (1j * torch.eye(4), torch.ones(2), "vectors must be real floating-point numbers; got torch.complex64"),
        (torch.eye(4), 1j * torch.ones(2), "weights must be real floating-point numbers; got torch.complex64"),
        (torch.eye(4), torch.ones(2, device="meta"), "vectors are on cpu, weights on meta"),
    ],
)
def test_numbers_that_would_be_cut_are_refused(vectors, weights, sentence):
    with pytest.raises(SimulationError, match=sentence):
        apply_circuit(cnot_chain(2, 1), vectors, weights)


def test_on_the_meta_device_shapes_come_back():
    weights = torch.empty(2, device="meta", requires_grad=True)
    result = apply_circuit(cnot_chain(2, 1), torch.empty(3, 4, device="meta"), weights)
    result.sum().backward()
    assert (result.shape, weights.grad.shape) == ((3, 4), (2,))

"""Kernel, torch path and dense matrices give the same values and gradients, for any circuit of the gate table."""

import itertools

import dense_oracle as dense
import numpy as np
import pytest
import torch
from circuit_strategies import build, circuits
from hypothesis import given, settings
from torch.testing import assert_close

from qpeft.circuits import Circuit, Input, Operation, Weight, ansatz
from qpeft.simulation import expectations, torch_path
from qpeft.simulation.kernel import runner

PATHS = {"kernel": (runner, torch.float32, 1e-5), "torch32": (torch_path, torch.float32, 1e-5)}
PATHS["torch64"] = (torch_path, torch.float64, 1e-7)  # the finite differences of the answer end here


def angles_for(circuit, *, rows, seed=0):
    generator = np.random.default_rng(seed)
    inputs, weights = generator.normal(size=(rows, circuit.num_inputs)), generator.normal(size=circuit.num_weights)
    return inputs * 2, weights * 2, generator.normal(size=(rows, circuit.num_observables))


def assert_all_paths_agree(circuit, *, rows=2):
    inputs, weights, grad = angles_for(circuit, rows=rows)
    # Inputs are rounded first: the answer must not see digits that float32 has not.
    inputs, weights, grad = (array.astype(np.float32).astype(float) for array in (inputs, weights, grad))
    values = dense.expectations(circuit, inputs, weights)
    by_inputs, by_weights = dense.gradients(circuit, inputs, weights, grad)
    for path, dtype, tolerance in PATHS.values():
        tensors = [torch.tensor(array, dtype=dtype) for array in (inputs, weights, grad)]
        assert np.abs(path.values(circuit, *tensors[:2]).numpy() - values).max(initial=0) < tolerance
        for found, expected in zip(path.gradients(circuit, *tensors), (by_inputs, by_weights), strict=True):
            size = max(1, np.abs(expected).max(initial=0))
            assert np.abs(found.numpy() - expected).max(initial=0) < tolerance * size


@settings(max_examples=170)
@given(data=circuits(max_qubits=6))
def test_any_circuit_agrees_with_dense_matrices(data):
    assert_all_paths_agree(build(data))


@settings(max_examples=30)
@given(data=circuits(max_qubits=10))
def test_any_larger_circuit_agrees_with_dense_matrices(data):
    assert_all_paths_agree(build(data))


@pytest.mark.parametrize("name", ansatz.ANSATZE)
@pytest.mark.parametrize(("num_qubits", "depth"), [(1, 1), (2, 1), (3, 2), (5, 1), (8, 1), (6, 3)])
def test_ready_made_circuits_agree_with_dense_matrices(name, num_qubits, depth):
    assert_all_paths_agree(ansatz.ANSATZE[name](num_qubits, depth))


@pytest.mark.parametrize("entangler", ["", "CZ", "CNOT", "SWAP"])
@pytest.mark.parametrize("last", ["", "RY", "RX", "RZ", "H", "S"])
def test_every_pauli_string_on_shallow_circuits_agrees_with_dense_matrices(entangler, last):
    operations = [Operation("RY", (qubit,), Input(qubit)) for qubit in range(3)]
    operations += [Operation(entangler, pair) for pair in ((0, 1), (1, 2)) if entangler]
    angle = Weight(0) if last.startswith("R") else None
    operations += [Operation(last, (qubit,), angle) for qubit in range(3) if last]
    strings = tuple(map("".join, itertools.product("IXYZ", repeat=3)))
    assert_all_paths_agree(Circuit(3, tuple(operations), strings))


@pytest.mark.parametrize("name", ansatz.ANSATZE)
def test_data_entering_once_agrees_with_dense_matrices(name):
    assert_all_paths_agree(ansatz.ANSATZE[name](5, 3, reupload=False))


@settings(max_examples=60)
@given(data=circuits(max_qubits=8, max_operations=60))
def test_values_stay_within_minus_one_and_one(data):
    circuit = build(data)
    inputs, weights, _ = angles_for(circuit, rows=40)
    values = expectations(circuit, torch.tensor(inputs).float(), torch.tensor(weights).float())
    assert not values.numel() or values.abs().max() <= 1 + 1e-5


@settings(max_examples=40)
@given(data=circuits(max_qubits=6, max_operations=60))
def test_the_identity_keeps_expectation_one(data):
    circuit = build(data)
    normed = Circuit(circuit.num_qubits, circuit.operations, ("I" * circuit.num_qubits,))
    inputs, weights, _ = angles_for(normed, rows=20)
    values = expectations(normed, torch.tensor(inputs).float(), torch.tensor(weights).float())
    assert_close(values, torch.ones_like(values), atol=1e-5, rtol=0)


def test_long_circuits_keep_their_norm_in_float32():
    circuit = ansatz.ring_crz(6, depth=12)
    # Z of every qubit of a 60-layer circuit: errors of norm would grow exponentially, rounding does not.
    inputs, weights, _ = angles_for(circuit, rows=4)
    tensors = [torch.tensor(array) for array in (inputs, weights)]
    assert_close(
        runner.values(circuit, *[t.float() for t in tensors]).double(),
        torch_path.values(circuit, *tensors),
        atol=2e-5,
        rtol=0,
    )


@pytest.mark.parametrize("tokens", [1, 15, 16, 17, 63, 65, 300])
def test_block_edges_lose_no_token(tokens):
    circuit = ansatz.ring_cnot(3, 2)
    inputs, weights, grad = (torch.tensor(array).float() for array in angles_for(circuit, rows=tokens))
    assert_close(
        runner.values(circuit, inputs, weights), torch_path.values(circuit, inputs, weights), atol=1e-5, rtol=0
    )
    for mine, reference in zip(
        runner.gradients(circuit, inputs, weights, grad),
        torch_path.gradients(circuit, inputs, weights, grad),
        strict=True,
    ):
        assert_close(mine, reference, atol=1e-5 * tokens, rtol=1e-5)


def test_blocks_of_the_torch_path_add_up(monkeypatch):
    circuit = ansatz.ring_crz(4, 2)
    inputs, weights, grad = (torch.tensor(array) for array in angles_for(circuit, rows=50))
    whole = torch_path.values(circuit, inputs, weights), *torch_path.gradients(circuit, inputs, weights, grad)
    monkeypatch.setitem(torch_path.AMPLITUDES_PER_BLOCK, "cpu", 16 * 7)
    monkeypatch.setattr(torch_path, "MIN_TOKENS", 1)
    parts = torch_path.values(circuit, inputs, weights), *torch_path.gradients(circuit, inputs, weights, grad)
    assert_close(parts, whole)


@pytest.mark.parametrize("angle", [1e-8, 1.0, 3.1415927, 100.0, 12345.678, 9e5, 4e7, -4e7])
def test_angles_of_any_size_are_exact(angle):
    circuit = Circuit(1, (Operation("RY", (0,), Input(0)),))
    inputs = torch.full((5, 1), angle)
    value = expectations(circuit, inputs, torch.empty(0))
    assert_close(value.double(), inputs.double().cos(), atol=3e-7, rtol=0)


@pytest.mark.parametrize("weight", [0.0, 1.5707964, 3.1415927, -3.1415927, 4.712389, 6.2831855, 50.0])
def test_weights_at_and_beyond_the_quarter_turns_are_exact(weight):
    gates = (
        Operation("RY", (0,), 0.4),
        Operation("RZ", (0,), 0.7),
        Operation("RY", (0,), Weight(0)),
        Operation("RZ", (0,), 0.3),
    )
    circuit = Circuit(1, (*gates, Operation("RY", (0,), 0.9)))
    weights = torch.tensor([weight])
    inputs = torch.empty(2, 0)
    expected = dense.expectations(circuit, inputs.numpy(), weights.numpy())
    assert_close(expectations(circuit, inputs, weights).double(), torch.tensor(expected), atol=1e-6, rtol=0)

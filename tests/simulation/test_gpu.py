"""The GPU kernels give the values and gradients of dense matrices, run by Triton's interpreter where there is no GPU."""

import os

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    # Read when Triton is imported, which happens below.
    os.environ.setdefault("TRITON_INTERPRET", "1")

import dense_oracle as dense
import numpy as np
import pytest
from circuit_strategies import build, circuits
from hypothesis import HealthCheck, given, settings
from torch.testing import assert_close

from qpeft.circuits import Circuit, Input, Operation, Weight, ansatz

pytest.importorskip("triton", reason="the GPU kernels are written in Triton")
from qpeft.simulation.gpu import runner

FIXED = settings(derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
SHAPES = [(1, 1), (1, 2), (2, 1), (2, 2), (3, 2), (4, 1), (5, 1), (6, 1)]


def on_device(array):
    return torch.tensor(array, dtype=torch.float32, device=DEVICE)


def angles_for(circuit, *, tokens, seed=0):
    """Inputs, weights and gradients of the values, float64 numbers that float32 holds exactly."""
    generator = np.random.default_rng(seed)
    shapes = [(tokens, circuit.num_inputs), (circuit.num_weights,), (tokens, circuit.num_observables)]
    return [(2 * generator.normal(size=shape)).astype(np.float32).astype(float) for shape in shapes]


def assert_agrees_with_dense(circuit, *, tokens=3):
    inputs, weights, grad = angles_for(circuit, tokens=tokens)
    values = runner.values(circuit, on_device(inputs), on_device(weights))
    assert np.abs(values.cpu().numpy() - dense.expectations(circuit, inputs, weights)).max(initial=0) < 1e-5
    found = runner.gradients(circuit, on_device(inputs), on_device(weights), on_device(grad))
    for mine, reference in zip(found, dense.gradients(circuit, inputs, weights, grad), strict=True):
        size = max(1, np.abs(reference).max(initial=0))
        assert np.abs(mine.cpu().numpy() - reference).max(initial=0) < 1e-5 * size


@pytest.mark.parametrize("name", ansatz.ANSATZE)
@pytest.mark.parametrize(("num_qubits", "depth"), SHAPES)
def test_ready_made_circuits_agree_with_dense_matrices(name, num_qubits, depth):
    assert_agrees_with_dense(ansatz.ANSATZE[name](num_qubits, depth))


@pytest.mark.parametrize("name", ansatz.ANSATZE)
def test_eight_qubits_agree_with_dense_matrices(name):
    assert_agrees_with_dense(ansatz.ANSATZE[name](8), tokens=3)


@pytest.mark.parametrize("name", ansatz.ANSATZE)
def test_data_entering_once_agrees_with_dense_matrices(name):
    assert_agrees_with_dense(ansatz.ANSATZE[name](3, 2, reupload=False))


@settings(FIXED, max_examples=60)
@given(data=circuits(max_qubits=4))
def test_any_circuit_of_the_gate_table_agrees_with_dense_matrices(data):
    assert_agrees_with_dense(build(data))

"""The GPU kernels agree with dense matrices; where there is no GPU, Triton's interpreter runs them."""

import math
import os
import subprocess
import sys
from pathlib import Path

import dense_oracle as dense
import numpy as np
import pytest
import torch
from circuit_strategies import build, circuits
from hypothesis import given, settings
from torch.testing import assert_close

from qpeft.circuits import Circuit, Input, Operation, Weight, ansatz
from qpeft.simulation import expectations, torch_path
from qpeft.simulation.gpu import runner, selection
from qpeft.simulation.gpu.module import source_of
from qpeft.simulation.gpu.selection import MAX_QUBITS, gpu_path

pytest.importorskip("triton", reason="the GPU kernels are written in Triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
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


@settings(max_examples=40 if DEVICE == "cpu" else 5)  # a GPU compiles every one of them
@given(data=circuits(max_qubits=4))
def test_any_circuit_of_the_gate_table_agrees_with_dense_matrices(data):
    assert_agrees_with_dense(build(data))


def test_pauli_strings_agree_with_dense_matrices():
    circuit = ansatz.ring_crz(3)
    strings = ("XYZ", "YYI", "IIX", "ZIZ", "YXY", "III")
    assert_agrees_with_dense(Circuit(3, circuit.operations, strings))


def test_a_pair_of_y_on_a_real_product_state_is_zero():
    circuit = Circuit(2, (Operation("RY", (0,), Input(0)), Operation("RY", (1,), Weight(0))), ("YY", "XX", "ZX", "IY"))
    assert_agrees_with_dense(circuit)


def test_a_weight_that_shifts_an_input_gets_its_gradient():
    gates = (Operation("RY", (0,), Input(0)), Operation("RY", (0,), Weight(0)), Operation("RX", (0,), Input(0)))
    assert_agrees_with_dense(Circuit(1, gates))


@pytest.mark.parametrize("tokens", [1, 31, 32, 33, 65])
def test_block_edges_lose_no_token(tokens):
    circuit = ansatz.ring_cz(3, 2)
    assert runner.launch_shape(circuit) == (32, 1)
    assert_agrees_with_dense(circuit, tokens=tokens)


def test_no_tokens_give_no_values_and_no_gradient():
    circuit = ansatz.ring_crz(3)
    inputs, weights, grad = (on_device(array) for array in angles_for(circuit, tokens=0))
    assert runner.values(circuit, inputs, weights).shape == (0, 3)
    by_inputs, by_weights = runner.gradients(circuit, inputs, weights, grad)
    assert by_inputs.shape == (0, 3)
    assert_close(by_weights, torch.zeros_like(weights))


def test_strided_tensors_are_read_as_they_lie():
    circuit = ansatz.ring_crz(3)
    inputs, weights, grad = (on_device(array) for array in angles_for(circuit, tokens=6))
    strided_inputs, strided_grad = inputs.T.contiguous().T, grad.repeat_interleave(2, 1)[:, ::2]
    strided_weights = weights.repeat_interleave(3)[::3]
    assert not any(t.is_contiguous() for t in (strided_inputs, strided_grad, strided_weights))
    assert_close(runner.values(circuit, strided_inputs, strided_weights), runner.values(circuit, inputs, weights))
    found = runner.gradients(circuit, strided_inputs, strided_weights, strided_grad)
    assert_close(found, runner.gradients(circuit, inputs, weights, grad), atol=0, rtol=0)


@pytest.mark.parametrize("angle", [1e-8, 3.1415927, 100.0, 12345.678, 9e5, 4e7, -4e7])
def test_angles_of_any_size_are_exact(angle):
    circuit = Circuit(1, (Operation("RY", (0,), Input(0)),))
    inputs = torch.full((2, 1), angle, device=DEVICE)
    values = runner.values(circuit, inputs, torch.empty(0, device=DEVICE))
    assert_close(values.double(), inputs.double().cos(), atol=1e-6, rtol=0)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # numpy's, from inside the interpreter
@pytest.mark.parametrize("angle", [math.nan, math.inf, -math.inf, 1e30])
def test_an_angle_without_a_cosine_makes_its_own_token_nan(angle):
    circuit = ansatz.ring_crz(3)
    inputs, weights, _ = (on_device(array) for array in angles_for(circuit, tokens=5))
    expected = runner.values(circuit, inputs, weights)
    inputs[2, 1] = angle
    values = runner.values(circuit, inputs, weights)
    others = torch.tensor([0, 1, 3, 4], device=DEVICE)
    assert values[2].isnan().any()
    assert_close(values[others], expected[others], atol=0, rtol=0)


def test_gradients_are_the_same_every_time():
    circuit = ansatz.ring_cz(4, 2)
    tensors = [on_device(array) for array in angles_for(circuit, tokens=70)]
    assert_close(runner.gradients(circuit, *tensors), runner.gradients(circuit, *tensors), atol=0, rtol=0)


def test_the_source_of_a_kernel_depends_on_structure_only():
    ring = ansatz.ring_crz(4)
    assert source_of(ring, 32) == source_of(Circuit(4, ring.operations, ring.observables), 32)


def test_circuits_within_the_limit_are_run_by_the_kernel():
    assert gpu_path(ansatz.ring_crz(MAX_QUBITS)) is runner


def test_circuits_beyond_the_limit_fall_back_to_torch_and_say_so():
    selection._say_once.cache_clear()
    with pytest.warns(RuntimeWarning, match=f"end at {MAX_QUBITS} qubits"):
        assert gpu_path(ansatz.ring_crz(MAX_QUBITS + 1)) is torch_path


def test_a_gpu_without_triton_falls_back_to_torch_and_says_so_once(monkeypatch, recwarn):
    selection._say_once.cache_clear()
    monkeypatch.setattr(selection.importlib.util, "find_spec", lambda _: None)
    assert gpu_path(ansatz.ring_crz(2)) is torch_path
    assert gpu_path(ansatz.ring_cz(2)) is torch_path
    assert ["Install triton" in str(warning.message) for warning in recwarn] == [True]


def test_expectations_differentiate_through_the_kernel(monkeypatch):
    monkeypatch.setattr(sys.modules["qpeft.simulation.expectations"], "_path", lambda *_: runner)
    circuit = ansatz.ring_crz(3)
    inputs, weights, grad = (on_device(array).requires_grad_() for array in angles_for(circuit, tokens=6))
    values = expectations(circuit, inputs.reshape(2, 3, 3), weights)
    found = torch.autograd.grad(values, [inputs, weights], grad.reshape(2, 3, 3))
    expected = torch_path.gradients(circuit, inputs.detach(), weights.detach(), grad.detach())
    assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.skipif(DEVICE == "cuda", reason="a GPU is here")
def test_the_benchmark_says_that_there_is_no_gpu():
    script = Path(__file__).parents[2] / "benchmarks" / "gpu.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no CUDA GPU" in done.stderr


def test_kernels_compile_for_a_gpu_without_spills():
    """In a process of its own: here, functions belong to the interpreter."""
    script = (
        "from qpeft.circuits import ansatz; from qpeft.simulation.gpu.inspection import resources;"
        "found = [resources(ansatz.ring_crz(3), which, tokens=32, num_warps=1) for which in ('forward', 'backward')];"
        "print([r.spill_bytes for r in found])"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[0, 0]", done.stderr

"""The contract of `expectations`: shapes, types, gradients, threads, and what it says about bad input."""

import concurrent.futures
import multiprocessing
import sys
import threading

import pytest
import torch
from torch.testing import assert_close

from qpeft.circuits import Circuit, Input, Operation, Weight, ansatz
from qpeft.errors import GradientError, SimulationError
from qpeft.simulation import checks, expectations
from qpeft.simulation.checks import check_shapes
from qpeft.simulation.kernel import compilation, interpreter, runner

MODULE = sys.modules["qpeft.simulation.expectations"]
CIRCUIT = ansatz.ring_crz(4)


def angles(*shape, dtype=torch.float32, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_circuits_beyond_the_kernel_say_once_what_they_cost():
    circuit = Circuit(17, [Operation("RY", (qubit,), Input(qubit)) for qubit in range(17)])
    inputs = torch.linspace(-2, 2, 17)[None]
    MODULE._say_cost.cache_clear()
    with pytest.warns(RuntimeWarning, match=r"17 qubits is beyond the compiled kernel \(16\).* 1 MiB for the state"):
        values = expectations(circuit, inputs, torch.empty(0))
    assert_close(values, inputs.cos(), atol=2e-5, rtol=0)
    assert_close(expectations(circuit, inputs, torch.empty(0)), values)  # and says nothing
    with pytest.warns(RuntimeWarning, match=r" 2 MiB for the state of one row"):
        expectations(circuit, inputs.double(), torch.empty(0, dtype=torch.float64))


def test_ry_rotation_gives_cosine():
    inputs = torch.linspace(-3, 3, 9)[:, None]
    circuit = Circuit(1, (Operation("RY", (0,), Input(0)),))
    assert_close(expectations(circuit, inputs, torch.empty(0)), inputs.cos())


@pytest.mark.parametrize("shape", [(4,), (0, 4), (7, 4), (2, 3, 4), (2, 0, 3, 4)])
def test_leading_dimensions_are_kept(shape):
    assert expectations(CIRCUIT, angles(*shape), angles(16)).shape == shape


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_values_and_gradients_come_in_the_type_of_their_inputs(dtype):
    inputs, weights = angles(5, 4).to(dtype).requires_grad_(), angles(16).requires_grad_()
    values = expectations(CIRCUIT, inputs, weights)
    values.sum().backward()
    assert (values.dtype, inputs.grad.dtype, weights.grad.dtype) == (dtype, dtype, torch.float32)


def test_double_precision_throughout_passes_gradcheck():
    inputs, weights = (angles(*shape, dtype=torch.float64).requires_grad_() for shape in ((3, 4), (16,)))
    assert torch.autograd.gradcheck(lambda *tensors: expectations(CIRCUIT, *tensors), (inputs, weights))


@pytest.mark.parametrize("num_observables", [1, 4, 5, 6, 8, 9])
@pytest.mark.parametrize("letters", ["Z", "ZZ", "ZX"])
def test_any_number_of_observables_agrees_with_double_precision(num_observables, letters):
    """Four bits of the state are measured at once, so that every remainder of four is a case of its own."""
    num_qubits = 9
    ring = [letters[:1].ljust(num_qubits, "I"), *(letters.rjust(k + 2, "I").ljust(num_qubits, "I") for k in range(8))]
    observables = tuple(dict.fromkeys(ring[:num_observables]))
    circuit = Circuit(num_qubits, ansatz.ring_crz(num_qubits).operations, observables)
    results = []
    for dtype in (torch.float32, torch.float64):
        inputs, weights = angles(17, 9).to(dtype).requires_grad_(), angles(36, seed=1).to(dtype).requires_grad_()
        values = expectations(circuit, inputs, weights)
        values.backward(angles(*values.shape, seed=2).to(dtype))
        results.append([tensor.double() for tensor in (values.detach(), inputs.grad, weights.grad)])
    assert_close(results[0], results[1], rtol=1e-5, atol=2e-5)


def test_a_circuit_without_inputs_or_without_rows():
    circuit = Circuit(2, (Operation("RY", (0,), Weight(0)), Operation("CNOT", (0, 1))))
    weights = torch.tensor([0.7], requires_grad=True)
    values = expectations(circuit, torch.empty(3, 0), weights)
    assert_close(values, weights.cos().expand(3, 2))
    values.sum().backward()
    assert_close(weights.grad, -6 * weights.detach().sin())
    assert expectations(circuit, torch.empty(0, 0), weights).shape == (0, 2)


def test_no_rows_give_zero_weight_gradients():
    weights = angles(16).requires_grad_()
    expectations(CIRCUIT, torch.empty(0, 4), weights).sum().backward()
    assert_close(weights.grad, torch.zeros(16))


def test_results_do_not_depend_on_strides():
    inputs = angles(4, 6).T.requires_grad_()
    grad = angles(4, 6, seed=1).T
    values = expectations(CIRCUIT, inputs, angles(16))
    (slopes,) = torch.autograd.grad(values, inputs, grad)
    copied = inputs.detach().contiguous().requires_grad_()
    again = expectations(CIRCUIT, copied, angles(16))
    assert_close(again, values)
    assert_close(torch.autograd.grad(again, copied, grad.contiguous())[0], slopes)


def test_autocast_does_not_cost_precision():
    expected = expectations(CIRCUIT, angles(5, 4), angles(16))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for circuit_path in (MODULE.torch_path, runner):
            assert_close(circuit_path.values(CIRCUIT, angles(5, 4), angles(16)), expected)


def test_only_inputs_and_weights_are_kept_for_the_backward_pass():
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.shape) or tensor, lambda t: t):
        expectations(CIRCUIT, angles(50, 4).requires_grad_(), angles(16))
    assert kept == [(50, 4), (16,)]


def test_second_derivatives_are_refused():
    inputs = angles(2, 4).requires_grad_()
    (slope,) = torch.autograd.grad(expectations(CIRCUIT, inputs, angles(16)).sum(), inputs, create_graph=True)
    with pytest.raises(GradientError, match="first derivatives only"):
        slope.sum().backward()


@pytest.mark.parametrize("circuit", [ansatz.ring_crz(8), ansatz.ring_cz(8), ansatz.ring_cnot(4, 3)])
def test_results_are_bit_identical_for_any_number_of_threads(circuit):
    before = torch.get_num_threads()
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        try:
            inputs = angles(1500, circuit.num_inputs).requires_grad_()
            weights = angles(circuit.num_weights).requires_grad_()
            values = expectations(circuit, inputs, weights)
            values.backward(angles(*values.shape, seed=2))
            results.append((values.detach(), inputs.grad, weights.grad))
        finally:
            torch.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(one, other) for one, other in zip(results[0], result, strict=True))


def test_many_python_threads_may_call_at_once():
    inputs, weights = angles(600, 4), angles(16)
    expected = expectations(CIRCUIT, inputs, weights)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for values in pool.map(lambda _: expectations(CIRCUIT, inputs, weights), range(16)):
            assert torch.equal(values, expected)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_computes_the_same():
    inputs, weights = angles(600, 4), angles(16)
    expected = expectations(CIRCUIT, inputs, weights)  # starts the parent's threads, which the child does not inherit
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=lambda: sender.send(runner.values(CIRCUIT, inputs, weights).tolist()), daemon=True)
    child.start()
    assert receiver.poll(60)
    assert torch.equal(torch.tensor(receiver.recv()), expected)
    child.join(60)


def test_one_compilation_serves_all_circuits():
    kernel = compilation.compiled_kernel()
    for circuit in (CIRCUIT, ansatz.ring_cnot(9, 2), Circuit(1, (Operation("RX", (0,), Input(0)),), ("Y",))):
        expectations(circuit, angles(3, circuit.num_inputs), angles(circuit.num_weights))
    assert all(len(function.signatures) == 1 for function in kernel)


def test_the_kernel_needs_little_memory_at_twelve_qubits():
    program = runner.compile_program(ansatz.ring_crz(12))
    numbers = interpreter.workspace_vectors(program.code) * runner.LANES + program.num_coefficients
    assert 4 * numbers + program.index.nbytes + 8 * program.num_sums * runner.MAX_PARTITIONS < 10e6


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("which", ["input", "weight"])
def test_angles_that_are_not_finite_are_refused(bad, which):
    inputs, weights = angles(5, 4), angles(16)
    (inputs if which == "input" else weights).view(-1)[3] = bad
    with pytest.raises(SimulationError, match=rf"1 of .* {which} angles are NaN or infinite.*clip gradients"):
        expectations(CIRCUIT, inputs, weights)


def test_a_wrong_last_dimension_is_refused():
    with pytest.raises(SimulationError, match=r"reads 4 input.*got shape \(5, 3\)"):
        expectations(CIRCUIT, angles(5, 3), angles(16))


def test_a_wrong_number_of_weights_is_refused():
    with pytest.raises(SimulationError, match=r"16 weight.*got \(15,\)"):
        expectations(CIRCUIT, angles(5, 4), angles(15))


def test_integer_weights_are_refused():
    with pytest.raises(SimulationError, match=r"weights must be real floating-point.*int64"):
        check_shapes(CIRCUIT, angles(5, 4), torch.zeros(16, dtype=torch.int64))


def test_tensors_on_two_devices_are_refused():
    with pytest.raises(SimulationError, match="inputs are on cpu, weights on meta"):
        expectations(CIRCUIT, angles(5, 4), torch.empty(16, device="meta"))


def test_more_qubits_than_memory_holds_are_refused_with_the_numbers(monkeypatch):
    monkeypatch.setattr(checks, "bytes_free", lambda _: 2 * 2**30)
    circuit = ansatz.ring_cz(30, 2)
    with pytest.raises(
        SimulationError, match=r"30 qubits needs .* GiB; cpu has 2.0 GiB free, enough for about 2\d qubits"
    ):
        expectations(circuit, angles(1, 30), angles(circuit.num_weights))


def test_without_numba_torch_computes_and_says_so_once(monkeypatch):
    expected = expectations(CIRCUIT, angles(5, 4), angles(16))
    MODULE._kernel.cache_clear()
    monkeypatch.setattr(MODULE.importlib.util, "find_spec", lambda _: None)
    try:
        with pytest.warns(RuntimeWarning, match="Install numba") as caught:
            found = [expectations(CIRCUIT, angles(5, 4), angles(16)) for _ in range(2)]
        assert len(caught) == 1
    finally:
        MODULE._kernel.cache_clear()
    assert_close(found[0], expected, atol=1e-6, rtol=0)


def test_a_cache_folder_that_cannot_be_written_costs_time_only(monkeypatch, caplog, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setattr(compilation.config, "CACHE_DIR", str(blocked))

    def refuse(*args, **kwargs):
        if kwargs.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return compilation.nb.core.decorators.njit(*args, **kwargs)

    monkeypatch.setattr(compilation.nb, "njit", refuse)
    function = compilation._compile(interpreter.workspace_vectors, compilation.nb.int64(compilation.nb.int64[::1]))
    assert function(runner.compile_program(CIRCUIT).code) > 0
    assert "every process compiles" in caplog.text


def test_workers_stop_when_one_fails():
    def fail(*_):
        raise ValueError("in a worker")

    with pytest.raises(ValueError, match="in a worker"):
        runner._share(runner.compile_program(CIRCUIT), compilation.compiled_kernel(), 5000, fail)
    assert threading.active_count() < 50


@pytest.mark.parametrize("scale", [30.0, 1e4, 9e4, 1e8, 1e12, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_angles_lose_no_digit(scale, dtype):
    """torch's own cos knows pi to as many digits as it takes; sums of a large and a small angle must not round."""
    circuit = Circuit(2, (Operation("RY", (0,), Input(0)), Operation("RY", (0,), Weight(0)), Operation("CNOT", (0, 1))))
    inputs, weights = (scale * angles(40, 1)).to(dtype), (scale * angles(1, seed=3)).to(dtype)
    x, w = inputs.double(), weights.double()
    expected = (x.cos() * w.cos() - x.sin() * w.sin()).expand(40, 2)
    slope = -(x.sin() * w.cos() + x.cos() * w.sin())
    paths = (runner, MODULE.torch_path) if dtype == torch.float32 and scale < 1e5 else (MODULE.torch_path,)
    for values in (expectations(circuit, inputs, weights), *(path.values(circuit, inputs, weights) for path in paths)):
        assert_close(values.double(), expected, atol=2e-6, rtol=0)
    leaf = inputs.clone().requires_grad_()
    expectations(circuit, leaf, weights)[:, 0].sum().backward()
    assert_close(leaf.grad.double(), slope, atol=2e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_of_no_rows_are_zero(dtype):
    inputs, weights = torch.empty(2, 0, 4, dtype=dtype, requires_grad=True), angles(16).to(dtype).requires_grad_()
    values = expectations(CIRCUIT, inputs, weights)
    assert values.shape == (2, 0, 4)
    values.sum().backward()
    assert torch.equal(weights.grad, torch.zeros(16, dtype=dtype))
    assert inputs.grad.shape == inputs.shape


@pytest.mark.parametrize("circuit", [ansatz.ring_crz(4), ansatz.ring_cz(4)])
def test_on_the_meta_device_shapes_come_back(circuit):
    inputs = torch.empty(3, 5, 4, device="meta", requires_grad=True)
    weights = torch.empty(circuit.num_weights, device="meta", requires_grad=True)
    values = expectations(circuit, inputs, weights)
    values.sum().backward()
    assert (values.shape, values.device.type) == ((3, 5, 4), "meta")
    assert (inputs.grad.shape, weights.grad.shape) == (inputs.shape, weights.shape)


def test_views_and_strides_change_nothing():
    inputs, weights, grad = angles(6, 4), angles(16), angles(6, 4, seed=5)
    leaf = inputs.clone().requires_grad_()
    values = expectations(CIRCUIT, leaf, weights)
    (expected,) = torch.autograd.grad(values, leaf, grad, retain_graph=True)
    assert torch.equal(expectations(CIRCUIT, inputs.T.contiguous().T, weights), values)
    assert torch.equal(expectations(CIRCUIT, inputs.repeat(1, 2)[:, :4], weights.repeat_interleave(2)[::2]), values)
    for strided in (grad.T.contiguous().T, grad.repeat(1, 2)[:, :4]):
        assert torch.equal(torch.autograd.grad(values, leaf, strided, retain_graph=True)[0], expected)
    row = inputs[0].clone().requires_grad_()
    (sixfold,) = torch.autograd.grad(expectations(CIRCUIT, row.expand(6, 4), weights), row, grad)
    rows = inputs[:1].expand(6, 4).clone().requires_grad_()
    (each,) = torch.autograd.grad(expectations(CIRCUIT, rows, weights), rows, grad)
    assert_close(sixfold, each.sum(0))


def test_tables_that_were_made_in_inference_mode_serve_training():
    circuit = ansatz.ring_cnot(5, 2)
    for dtype in (torch.float32, torch.float64):
        inputs, weights = angles(3, 5).to(dtype), angles(circuit.num_weights).to(dtype)
        with torch.inference_mode():
            expected = expectations(circuit, inputs, weights)
        leaf = weights.clone().requires_grad_()
        values = expectations(circuit, inputs, leaf)
        values.sum().backward()
        assert torch.equal(values.detach(), expected.clone())
        assert leaf.grad.abs().sum() > 0

"""Density matrices: limits that are known without a simulator, gradients by differences, blocks, bad input."""

from __future__ import annotations

import math

import pytest
import torch
from noise_reference import dense_expectations
from torch.testing import assert_close

from qpeft.circuits import Circuit, Input, Operation, Weight, ansatz
from qpeft.errors import NoiseError, SimulationError
from qpeft.simulation.noise import (
    Damping,
    EdgeNoise,
    NoiseModel,
    QubitNoise,
    ReadoutError,
    density,
    noisy_expectations,
)

SOME_QUBIT = QubitNoise(0.02, Damping(0.03, 0.05), ReadoutError(0.04, 0.08))
SOME_EDGE = EdgeNoise(0.06, (Damping(0.02, 0.01), Damping(0.05, 0.03)))


def angles(circuit: Circuit, *batch: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.empty(*batch, circuit.num_inputs).uniform_(-math.pi, math.pi, generator=generator)
    return inputs, torch.empty(circuit.num_weights).uniform_(-math.pi, math.pi, generator=generator)


def uniform(num_qubits: int) -> NoiseModel:
    return NoiseModel.uniform(num_qubits, qubit=SOME_QUBIT, edge=SOME_EDGE)


def one_gate(gate: str, *observables: str) -> Circuit:
    return Circuit(1, (Operation(gate, (0,), Input(0)),), observables)


@pytest.mark.parametrize("family", ["ring_crz", "ring_cz", "ring_cnot"])
@pytest.mark.parametrize("num_qubits", [1, 2, 5])
def test_without_noise_values_and_gradients_are_the_exact_ones(family, num_qubits):
    circuit = ansatz.ANSATZE[family](num_qubits, 2)
    gradients, values = [], []
    for evaluate in (dense_expectations, lambda *a: noisy_expectations(*a, NoiseModel.uniform(num_qubits))):
        inputs, weights = (t.requires_grad_() for t in angles(circuit, 7))
        values.append(evaluate(circuit, inputs, weights).float())
        gradients.append(torch.autograd.grad(values[-1].square().sum(), [inputs, weights]))
    assert_close(values[0], values[1], atol=2e-6, rtol=0)
    assert_close(gradients[0], gradients[1], atol=1e-5, rtol=0)


def test_general_pauli_strings_without_noise_are_the_exact_ones():
    circuit = Circuit(3, ansatz.ring_crz(3).operations, ("XYZ", "YIX", "IIY", "III"))
    inputs, weights = angles(circuit, 7)
    values = noisy_expectations(circuit, inputs, weights, NoiseModel.uniform(3))
    assert_close(values, dense_expectations(circuit, inputs, weights).float(), atol=2e-6, rtol=0)


def test_gradients_equal_finite_differences():
    circuit = Circuit(3, ansatz.ring_crz(3, 2).operations, ("ZII", "XYI", "ZZZ"))
    inputs, weights = (t.requires_grad_() for t in angles(circuit, 2))
    noise, step = uniform(3), 1e-2
    grad = torch.autograd.grad(noisy_expectations(circuit, inputs, weights, noise).sum(), [inputs, weights])
    for tensor, of_tensor in zip((inputs, weights), grad, strict=True):
        for position in range(tensor.numel()):
            sums = []
            for shift in (step, -step):
                moved = tensor.detach().clone()
                moved.view(-1)[position] += shift
                pair = (moved, weights.detach()) if tensor is inputs else (inputs.detach(), moved)
                sums.append(noisy_expectations(circuit, *pair, noise).double().sum().item())
            # Error of the difference: step**2 / 6 times a third derivative, and float32 over the step.
            assert of_tensor.view(-1)[position].item() == pytest.approx((sums[0] - sums[1]) / (2 * step), abs=3e-4)


@pytest.mark.parametrize("family", ["ring_crz", "ring_cz"])
def test_fully_depolarising_gates_leave_nothing(family):
    circuit = ansatz.ANSATZE[family](3)
    noise = NoiseModel.uniform(3, qubit=QubitNoise(1.0), edge=EdgeNoise(1.0))
    inputs, weights = (t.requires_grad_() for t in angles(circuit, 4))
    values = noisy_expectations(circuit, inputs, weights, noise)
    assert_close(values, torch.zeros_like(values))
    assert all((g == 0).all() for g in torch.autograd.grad(values.sum(), [inputs, weights]))


def test_depolarising_after_each_rotation_multiplies_the_cosine():
    circuit = Circuit(1, tuple(Operation("RY", (0,), Input(k)) for k in range(3)))
    inputs, weights = angles(circuit, 20)
    values = noisy_expectations(circuit, inputs, weights, NoiseModel.uniform(1, qubit=QubitNoise(0.1)))
    assert_close(values[:, 0], 0.9**3 * inputs.sum(1).cos(), atol=1e-6, rtol=0)


def test_amplitude_damping_pulls_to_zero_and_phase_damping_shrinks_coherence():
    inputs, weights = angles(one_gate("RY"), 20)
    circuit = one_gate("RY", "Z", "X")
    noise = NoiseModel.uniform(1, qubit=QubitNoise(damping=Damping(amplitude=0.3, phase=0.2)))
    values = noisy_expectations(circuit, inputs, weights, noise)
    expected = torch.cat([0.7 * inputs.cos() + 0.3, math.sqrt(0.7 * 0.8) * inputs.sin()], dim=1)
    assert_close(values, expected, atol=1e-6, rtol=0)


def test_full_amplitude_damping_resets_every_qubit():
    noise = NoiseModel.uniform(2, qubit=QubitNoise(damping=Damping(amplitude=1.0)))
    circuit = Circuit(2, (Operation("CNOT", (0, 1)), Operation("RY", (0,), Input(0)), Operation("RX", (1,), Input(1))))
    inputs, weights = angles(circuit, 5)
    assert_close(noisy_expectations(circuit, inputs, weights, noise), torch.ones(5, 2))


def test_readout_errors_mix_the_observable_with_its_constant():
    circuit = Circuit(
        2, (Operation("RY", (0,), Input(0)), Operation("RY", (1,), Input(1))), ("ZI", "XI", "ZZ", "XZ", "II")
    )
    noise = NoiseModel.from_mappings(
        {0: QubitNoise(readout=ReadoutError(0.05, 0.1)), 1: QubitNoise(readout=ReadoutError(0.2, 0.02))}, {}
    )
    inputs, weights = angles(circuit, 20)
    cos, sin = inputs.cos(), inputs.sin()
    z0, x0, z1 = 0.85 * cos[:, 0] + 0.05, 0.85 * sin[:, 0] + 0.05, 0.78 * cos[:, 1] - 0.18
    expected = torch.stack([z0, x0, z0 * z1, x0 * z1, torch.ones(20)], dim=1)
    assert_close(noisy_expectations(circuit, inputs, weights, noise), expected, atol=1e-6, rtol=0)


def test_the_trace_stays_one_and_the_purity_at_most_one():
    circuit = ansatz.ring_crz(4, 2)
    inputs, weights = angles(circuit, 6)
    state = density.pauli_coefficients(circuit, inputs, weights, uniform(4)).reshape(4**4, 6)
    assert_close(state[0], torch.ones(6))
    purity = state.square().sum(0) / 2**4
    assert ((purity > 2**-4) & (purity < 1)).all()


def test_more_noise_and_more_depth_flatten_the_values():
    def spread(depth: int, error: float) -> float:
        circuit = ansatz.ring_cz(3, depth)
        noise = NoiseModel.uniform(3, qubit=QubitNoise(error / 10), edge=EdgeNoise(error))
        exact, noisy = (
            f(circuit, *angles(circuit, 30)) for f in (dense_expectations, lambda *a: noisy_expectations(*a, noise))
        )
        return (noisy.std() / exact.std()).item()

    assert 1 > spread(1, 0.01) > spread(1, 0.03) > spread(1, 0.1) > 0
    assert spread(1, 0.03) > spread(2, 0.03) > spread(4, 0.03)


def test_blocks_of_tokens_do_not_change_the_result(monkeypatch):
    circuit = ansatz.ring_crz(3)
    inputs, weights = (t.requires_grad_() for t in angles(circuit, 11))
    results = []
    for numbers in (density.NUMBERS_PER_BLOCK, 4 * 4**3, 1):
        monkeypatch.setattr(density, "NUMBERS_PER_BLOCK", numbers)
        values = noisy_expectations(circuit, inputs, weights, uniform(3))
        results.append((values, *torch.autograd.grad(values.cos().sum(), [inputs, weights])))
    for other in results[1:]:
        assert_close(other, results[0], atol=1e-6, rtol=1e-5)


def test_only_inputs_and_weights_are_kept_for_the_backward_pass():
    circuit, saved = ansatz.ring_crz(4, 2), []
    inputs, weights = (t.requires_grad_() for t in angles(circuit, 50))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        noisy_expectations(circuit, inputs, weights, uniform(4))
    # torch calls the hook more than once per tensor.
    assert {t.data_ptr() for t in saved} == {inputs.data_ptr(), weights.data_ptr()}


def test_a_block_of_the_backward_pass_keeps_at_most_the_promised_numbers():
    circuit = ansatz.ring_crz(8, 4)
    kept = 1 + sum(isinstance(op.angle, (Input, Weight)) for op in circuit.operations)
    tokens = density._tokens_per_block(circuit, states_kept=kept)
    assert tokens * kept * 4**8 <= density.NUMBERS_KEPT


def test_eight_qubits_work():
    circuit = ansatz.ring_cz(8)
    inputs, weights = (t.requires_grad_() for t in angles(circuit, 1))
    values = noisy_expectations(circuit, inputs, weights, NoiseModel.uniform(8))
    assert_close(values, dense_expectations(circuit, inputs, weights).float(), atol=5e-6, rtol=0)
    values.sum().backward()
    assert torch.isfinite(inputs.grad).all()


@pytest.mark.parametrize("batch", [(), (0,), (2, 3)])
def test_leading_axes_are_kept(batch):
    circuit = ansatz.ring_cz(2)
    inputs, weights = (t.requires_grad_() for t in angles(circuit, *batch))
    values = noisy_expectations(circuit, inputs, weights, uniform(2))
    assert values.shape == (*batch, 2)
    values.sum().backward()
    assert inputs.grad.shape == inputs.shape


def test_bfloat16_inputs_give_bfloat16_values_and_gradients():
    circuit = ansatz.ring_cz(2)
    inputs, weights = angles(circuit, 3)
    inputs = inputs.bfloat16().requires_grad_()
    values = noisy_expectations(circuit, inputs, weights, uniform(2))
    values.float().sum().backward()
    assert values.dtype == inputs.grad.dtype == torch.bfloat16


def test_autocast_does_not_touch_the_simulation():
    circuit = ansatz.ring_cz(3)
    inputs, weights = angles(circuit, 5)
    plain = noisy_expectations(circuit, inputs, weights, uniform(3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(noisy_expectations(circuit, inputs, weights, uniform(3)), plain)


def test_a_circuit_without_angles_has_values():
    circuit = Circuit(1, (Operation("X", (0,)),))
    values = noisy_expectations(
        circuit, torch.empty(2, 0), torch.empty(0), NoiseModel.uniform(1, qubit=QubitNoise(0.1))
    )
    assert_close(values, torch.full((2, 1), -0.9))


def test_a_weight_used_twice_collects_both_slopes():
    circuit = Circuit(1, (Operation("RY", (0,), Weight(0)), Operation("RY", (0,), Weight(0))))
    weights = torch.tensor([0.4], requires_grad=True)
    noisy_expectations(
        circuit, torch.empty(1, 0), weights, NoiseModel.uniform(1, qubit=QubitNoise(0.1))
    ).sum().backward()
    assert weights.grad.item() == pytest.approx(-2 * 0.81 * math.sin(0.8), abs=1e-6)


def test_nine_qubits_are_refused_with_the_memory_they_need():
    circuit = ansatz.ring_cz(9)
    with pytest.raises(SimulationError, match=r"at most 8 qubits; got 9, for which .* 1 MiB.*LinearNoise"):
        noisy_expectations(circuit, *angles(circuit, 1), NoiseModel.uniform(9))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("position", [0, 1])
def test_angles_that_are_no_numbers_are_refused(bad, position):
    circuit = ansatz.ring_cz(2)
    pair = angles(circuit, 3)
    pair[position].view(-1)[1] = bad
    with pytest.raises(SimulationError, match=rf"{('inputs', 'weights')[position]} must be finite.*got 1 of"):
        noisy_expectations(circuit, *pair, uniform(2))


@pytest.mark.parametrize(("inputs", "weights"), [((3, 3), (4,)), ((3, 2), (5,)), ((3, 2), (4, 1))])
def test_wrong_shapes_are_refused(inputs, weights):
    with pytest.raises(Exception, match=r"axis of that size|has 4 weight|Type-check"):
        noisy_expectations(ansatz.ring_cz(2), torch.zeros(inputs), torch.zeros(weights), uniform(2))


def test_a_circuit_that_leaves_the_model_is_refused():
    circuit = ansatz.ring_cz(3)
    with pytest.raises(NoiseError, match="nothing about qubit 2"):
        noisy_expectations(circuit, *angles(circuit, 1), uniform(2))
    with pytest.raises(NoiseError, match="qubits 2 and 0"):
        noisy_expectations(circuit, *angles(circuit, 1), NoiseModel.uniform(3, edges=[(0, 1), (1, 2)]))

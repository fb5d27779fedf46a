"""Finite shots: unbiased, of the right spread and correlation, reproducible from the key alone."""

from __future__ import annotations

import math
from functools import reduce

import numpy as np
import pytest
import torch
from noise_reference import dense_expectations, dense_state
from torch.testing import assert_close

from qpeft.circuits import Circuit, Input, Operation, Weight, ansatz
from qpeft.errors import GradientError, NoiseError, ShotsError, SimulationError
from qpeft.simulation import shots as shots_module
from qpeft.simulation.noise import (
    Damping,
    EdgeNoise,
    NoiseModel,
    QubitNoise,
    ReadoutError,
    SampleKey,
    noisy_expectations,
)
from qpeft.simulation.noise.counter import Stream
from qpeft.simulation.shots import measurement_bases, sampled_counts, sampled_expectations

NO_WEIGHTS = torch.empty(0)
REPEATS = 4000


def pair_circuit(*observables: str) -> Circuit:
    """Two qubits, entangled by an amount that the input sets."""
    operations = (Operation("RY", (0,), Input(0)), Operation("CRY", (0, 1), Weight(0)), Operation("RX", (1,), Input(1)))
    return Circuit(2, operations, observables)


PAIR_INPUTS, PAIR_WEIGHTS = torch.tensor([[1.2, 0.4]]), torch.tensor([2.1])
NOISE = NoiseModel.uniform(
    2,
    qubit=QubitNoise(0.02, Damping(0.05, 0.1), ReadoutError(0.05, 0.12)),
    edge=EdgeNoise(0.1, (Damping(0.1, 0.0), Damping(0.0, 0.1))),
)


def repeated(circuit: Circuit, shots: int, noise: NoiseModel | None) -> torch.Tensor:
    """REPEATS independent estimates, (REPEATS, num_observables), float64."""
    inputs = PAIR_INPUTS.double().expand(REPEATS, 2)
    return sampled_expectations(circuit, inputs, PAIR_WEIGHTS.double(), shots, SampleKey(7), noise=noise).values


@pytest.mark.parametrize("noise", [None, NOISE], ids=["perfect", "noisy"])
@pytest.mark.parametrize("shots", [1, 3, 200])
def test_estimates_are_unbiased_with_the_variance_of_single_bits(shots, noise):
    circuit = pair_circuit("ZI", "IZ", "ZZ", "XY", "YI", "II")
    if noise is None:
        exact = dense_expectations(circuit, PAIR_INPUTS, PAIR_WEIGHTS)[0]
    else:
        exact = noisy_expectations(circuit, PAIR_INPUTS, PAIR_WEIGHTS, noise)[0].double()
    estimates = repeated(circuit, shots, noise)
    variance = (1 - exact**2).clamp(min=0) / shots
    z = (estimates.mean(0) - exact) / (variance / REPEATS).sqrt().clamp(min=1e-6)
    assert z.abs().max() < 4
    assert_close(estimates.var(0), variance, rtol=0.15, atol=1e-9)


@pytest.mark.parametrize("noise", [None, NOISE], ids=["perfect", "noisy"])
def test_qubits_of_one_circuit_are_correlated_as_their_product_says(noise):
    circuit = pair_circuit("ZI", "IZ", "ZZ")
    if noise is None:
        z0, z1, z01 = dense_expectations(circuit, PAIR_INPUTS, PAIR_WEIGHTS)[0].tolist()
    else:
        z0, z1, z01 = noisy_expectations(circuit, PAIR_INPUTS, PAIR_WEIGHTS, noise)[0].tolist()
    estimates = repeated(circuit, 50, noise)
    covariance = torch.cov(estimates[:, :2].T)[0, 1].item() * 50
    assert abs(z01 - z0 * z1) > 0.1  # else there is nothing to see
    assert covariance == pytest.approx(z01 - z0 * z1, abs=4 / math.sqrt(REPEATS))


def test_different_bases_are_sampled_independently():
    estimates = repeated(pair_circuit("ZI", "XI"), 20, None)
    assert torch.corrcoef(estimates.T)[0, 1].abs() < 4 / math.sqrt(REPEATS)


def test_standard_errors_tell_the_spread():
    circuit = pair_circuit("ZI", "XY")
    inputs = PAIR_INPUTS.expand(REPEATS, 2)
    estimates = sampled_expectations(circuit, inputs, PAIR_WEIGHTS, 500, SampleKey(7))
    spread = estimates.values.std(0)
    assert_close(estimates.standard_errors.mean(0), spread, rtol=0.05, atol=0)


def test_a_single_shot_gives_signs_and_the_largest_standard_error():
    estimates = sampled_expectations(pair_circuit(), PAIR_INPUTS, PAIR_WEIGHTS, 1, SampleKey(0))
    assert_close(estimates.values.abs(), torch.ones(1, 2))
    assert_close(estimates.standard_errors, torch.ones(1, 2))


def test_outcomes_follow_the_joint_distribution():
    circuit = ansatz.ring_crz(4)
    generator = torch.Generator().manual_seed(0)
    inputs, weights = torch.randn(1, 4, generator=generator), torch.randn(16, generator=generator)
    probabilities = dense_state(circuit, inputs[0], weights).abs().square()
    counts = sampled_counts(circuit, inputs, weights, 100_000, SampleKey(1))[0]
    assert counts.sum() == 100_000
    chi_squared = ((counts - 100_000 * probabilities) ** 2 / (100_000 * probabilities)).sum().item()
    assert chi_squared < 15 + 5 * math.sqrt(30)  # 15 degrees of freedom


def test_noisy_outcomes_follow_the_distribution_of_readout_errors():
    circuit = Circuit(2, (Operation("X", (1,)),))
    noise = NoiseModel.from_mappings(
        {0: QubitNoise(readout=ReadoutError(0.1, 0.5)), 1: QubitNoise(readout=ReadoutError(0.5, 0.3))}, {}
    )
    counts = sampled_counts(circuit, torch.empty(1, 0), NO_WEIGHTS, 100_000, SampleKey(1), noise=noise)[0]
    expected = 100_000 * torch.tensor([0.9 * 0.3, 0.9 * 0.7, 0.1 * 0.3, 0.1 * 0.7])
    assert ((counts - expected).abs() < 5 * expected.sqrt()).all()


def test_the_leftmost_bit_is_qubit_zero():
    counts = sampled_counts(Circuit(3, (Operation("X", (0,)),)), torch.empty(1, 0), NO_WEIGHTS, 10, SampleKey(0))
    assert counts.tolist() == [[0, 0, 0, 0, 10, 0, 0, 0]]


def test_certain_outcomes_never_miss():
    circuit = Circuit(
        2, (Operation("H", (0,)), Operation("SDG", (1,)), Operation("H", (1,)), Operation("S", (1,))), ("XI", "IY")
    )
    estimates = sampled_expectations(circuit, torch.empty(50, 0), NO_WEIGHTS, 1000, SampleKey(0))
    assert_close(estimates.values, torch.ones(50, 2))
    assert_close(estimates.standard_errors, torch.zeros(50, 2))


def test_the_same_key_gives_the_same_samples_whatever_came_before():
    circuit = ansatz.ring_crz(5)
    inputs, weights = torch.linspace(-2, 2, 40).reshape(8, 5), torch.linspace(-3, 3, 20)
    first = sampled_counts(circuit, inputs, weights, 100, SampleKey(1, step=2, module="q", call=3))
    torch.rand(10)
    sampled_counts(circuit, inputs, weights, 17, SampleKey(1, step=2, module="q", call=2))
    assert torch.equal(sampled_counts(circuit, inputs, weights, 100, SampleKey(1, step=2, module="q", call=3)), first)
    for other in (SampleKey(1, step=2, module="q", call=4), SampleKey(1, step=2, module="v", call=3)):
        assert not torch.equal(sampled_counts(circuit, inputs, weights, 100, other), first)


@pytest.mark.parametrize("noise", [None, NoiseModel.uniform(5, qubit=QubitNoise(0.01), edge=EdgeNoise(0.05))])
def test_one_thread_and_two_give_the_same_samples(noise):
    circuit, before = ansatz.ring_crz(5), torch.get_num_threads()
    generator = torch.Generator().manual_seed(0)
    inputs, weights = torch.randn(200, 5, generator=generator), torch.randn(20, generator=generator)
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(sampled_counts(circuit, inputs, weights, 200, SampleKey(4), noise=noise))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)


@pytest.mark.parametrize("noise", [None, NOISE], ids=["perfect", "noisy"])
def test_blocks_of_tokens_do_not_change_the_samples(noise, monkeypatch):
    inputs = torch.linspace(-3, 3, 60).reshape(30, 2)
    before = sampled_counts(pair_circuit(), inputs, PAIR_WEIGHTS, 64, SampleKey(0), noise=noise)
    monkeypatch.setattr(shots_module, "NUMBERS_PER_BLOCK", 64 * 7)
    assert torch.equal(sampled_counts(pair_circuit(), inputs, PAIR_WEIGHTS, 64, SampleKey(0), noise=noise), before)


@pytest.mark.parametrize("batch", [(), (0,), (2, 3)])
def test_leading_axes_are_kept(batch):
    circuit, inputs = pair_circuit("ZI", "XI", "YY"), torch.zeros(*batch, 2)
    estimates = sampled_expectations(circuit, inputs, PAIR_WEIGHTS, 5, SampleKey(0))
    assert estimates.values.shape == estimates.standard_errors.shape == (*batch, 3)
    assert sampled_counts(circuit, inputs, PAIR_WEIGHTS, 5, SampleKey(0)).shape == (*batch, 4)


def test_observables_share_a_basis_where_they_agree_on_every_qubit():
    assert measurement_bases(("ZII", "IZI", "IIZ", "ZZZ")) == {"ZZZ": [0, 1, 2, 3]}
    assert measurement_bases(("XIY", "ZII", "IYI", "III")) == {"XYY": [0, 2, 3], "ZZZ": [1]}
    assert measurement_bases(("XX", "YY", "XI")) == {"XX": [0, 2], "YY": [1]}


def test_exact_values_have_no_standard_error_and_a_gradient():
    inputs = PAIR_INPUTS.clone().requires_grad_()
    estimates = sampled_expectations(pair_circuit(), inputs, PAIR_WEIGHTS, None, SampleKey(0), noise=NOISE)
    assert_close(estimates.values, noisy_expectations(pair_circuit(), PAIR_INPUTS, PAIR_WEIGHTS, NOISE))
    assert_close(estimates.standard_errors, torch.zeros(1, 2))
    estimates.values.sum().backward()
    assert inputs.grad.abs().min() > 0


def test_a_gradient_through_samples_raises_and_names_the_way():
    for inputs, weights in (
        (PAIR_INPUTS.clone().requires_grad_(), PAIR_WEIGHTS),
        (PAIR_INPUTS, PAIR_WEIGHTS.clone().requires_grad_()),
    ):
        values = sampled_expectations(pair_circuit(), inputs, weights, 10, SampleKey(0)).values
        with pytest.raises(GradientError, match=r"Pass gradient='straight-through'.*torch\.no_grad\(\)"):
            values.sum().backward()


@pytest.mark.parametrize("noise", [None, NOISE], ids=["perfect", "noisy"])
def test_straight_through_gives_samples_and_the_exact_gradient(noise):
    circuit = pair_circuit("ZI", "XY")
    inputs, weights = PAIR_INPUTS.clone().requires_grad_(), PAIR_WEIGHTS.clone().requires_grad_()
    options = {"noise": noise}
    plain = sampled_expectations(circuit, PAIR_INPUTS, PAIR_WEIGHTS, 10, SampleKey(0), **options)
    through = sampled_expectations(circuit, inputs, weights, 10, SampleKey(0), gradient="straight-through", **options)
    assert torch.equal(through.values, plain.values)
    gradient = torch.autograd.grad(through.values.sum(), [inputs, weights])
    exact = (
        dense_expectations(circuit, inputs, weights)
        if noise is None
        else noisy_expectations(circuit, inputs, weights, noise)
    )
    assert_close(gradient, torch.autograd.grad(exact.sum(), [inputs, weights]), atol=1e-5, rtol=0)


def test_standard_errors_carry_no_gradient():
    inputs = PAIR_INPUTS.clone().requires_grad_()
    assert not sampled_expectations(
        pair_circuit(), inputs, PAIR_WEIGHTS, 10, SampleKey(0)
    ).standard_errors.requires_grad


@pytest.mark.parametrize("noise", [None, NOISE], ids=["perfect", "noisy"])
def test_equal_keys_give_the_samples_that_they_always_gave(noise):
    inputs, key = torch.linspace(-3, 3, 6).reshape(3, 2), SampleKey(3, step=2, module="m")
    first = {
        None: [[1, 5, 567, 427], [819, 74, 34, 73], [1, 414, 414, 171]],
        NOISE: [[157, 118, 456, 269], [709, 124, 89, 78], [195, 335, 311, 159]],
    }
    assert sampled_counts(pair_circuit(), inputs, PAIR_WEIGHTS, 1000, key, noise=noise).tolist() == first[noise]


def test_many_shots_are_drawn_in_blocks_that_change_no_sample(monkeypatch):
    inputs = torch.linspace(-3, 3, 6).reshape(3, 2)[:2]
    counts = sampled_counts(pair_circuit(), inputs, PAIR_WEIGHTS, 2_500_000, SampleKey(3))
    # As they came when all of a row were drawn at once.
    assert counts.tolist() == [[4839, 7687, 1386641, 1100833], [2083331, 198549, 63647, 154473]]
    asked = []
    uniforms = Stream.uniforms
    monkeypatch.setattr(
        Stream, "uniforms", lambda self, *shape: asked.append(math.prod(shape)) or uniforms(self, *shape)
    )
    for block in (100_003, 2**20):
        monkeypatch.setattr(shots_module, "NUMBERS_PER_BLOCK", block)
        assert torch.equal(sampled_counts(pair_circuit(), inputs, PAIR_WEIGHTS, 2_500_000, SampleKey(3)), counts)
        assert max(asked) == block
        asked.clear()


def test_means_of_many_rows_hold_the_counts_of_one_block_of_rows_at_a_time(monkeypatch):
    monkeypatch.setattr(shots_module, "NUMBERS_PER_BLOCK", 2**12)
    circuit, sizes = ansatz.ring_cz(8), []
    sampled = shots_module.sampled
    monkeypatch.setattr(shots_module, "sampled", lambda p, *rest: sizes.append(p.numel()) or sampled(p, *rest))
    inputs = torch.linspace(-3, 3, 8 * 40).reshape(40, 8)
    values = sampled_expectations(circuit, inputs, torch.ones(circuit.num_weights), 30, SampleKey(1)).values
    assert max(sizes) <= 2**12
    assert sum(sizes) == 40 * 2**8
    monkeypatch.setattr(shots_module, "NUMBERS_PER_BLOCK", 2**20)
    assert torch.equal(
        sampled_expectations(circuit, inputs, torch.ones(circuit.num_weights), 30, SampleKey(1)).values, values
    )


@pytest.mark.parametrize("shots", [1.5, 100.0, True, "100", math.nan, [5], np.ones(2, int), torch.ones(2).long()])
def test_shots_that_are_no_whole_number_are_refused(shots):
    for sample in (sampled_expectations, sampled_counts):
        with pytest.raises(ShotsError, match="shots must be a whole number; got"):
            sample(pair_circuit(), PAIR_INPUTS, PAIR_WEIGHTS, shots, SampleKey(0))


def test_shots_of_other_integer_types_are_the_same_number():
    numbers = (np.int64(7), np.uint8(7), torch.tensor(7))
    seven = sampled_expectations(pair_circuit(), PAIR_INPUTS, PAIR_WEIGHTS, 7, SampleKey(0))
    for number in numbers:
        assert torch.equal(
            sampled_expectations(pair_circuit(), PAIR_INPUTS, PAIR_WEIGHTS, number, SampleKey(0)).values, seven.values
        )


@pytest.mark.parametrize("seed", [1.5, True, "7", None])
def test_a_seed_that_is_no_whole_number_is_refused(seed):
    with pytest.raises(SimulationError, match=r"SampleKey\.seed must be a whole number"):
        SampleKey(seed)


@pytest.mark.parametrize("shots", [0, -3])
def test_fewer_than_one_shot_is_refused(shots):
    for sample in (sampled_expectations, sampled_counts):
        with pytest.raises(ShotsError, match=rf"at least 1; got {shots}\. (For e|E)xact values"):
            sample(pair_circuit(), PAIR_INPUTS, PAIR_WEIGHTS, shots, SampleKey(0))


def test_too_many_qubits_are_refused_with_the_memory_they_need():
    circuit = ansatz.ring_cz(21)
    with pytest.raises(SimulationError, match=r"at most 20 qubits; got 21, for which .* 32 MiB"):
        sampled_counts(circuit, torch.zeros(1, 21), torch.zeros(42), 10, SampleKey(0))
    circuit = ansatz.ring_cz(9)
    with pytest.raises(SimulationError, match="at most 8 qubits; got 9"):
        sampled_counts(circuit, torch.zeros(1, 9), torch.zeros(18), 10, SampleKey(0), noise=NoiseModel.uniform(9))


def test_bad_angles_and_uncovered_qubits_are_refused():
    with pytest.raises(SimulationError, match="inputs must be finite"):
        sampled_counts(pair_circuit(), torch.tensor([[math.nan, 0.0]]), PAIR_WEIGHTS, 10, SampleKey(0))
    with pytest.raises(NoiseError, match="nothing about qubit 1"):
        sampled_counts(pair_circuit(), PAIR_INPUTS, PAIR_WEIGHTS, 10, SampleKey(0), noise=NoiseModel.uniform(1))


def test_larger_registers_are_sampled_too():
    circuit = ansatz.ring_cz(12)
    inputs, weights = torch.zeros(2, 12), torch.zeros(24)
    counts = sampled_counts(circuit, inputs, weights, 7, SampleKey(0))
    assert counts[:, 0].tolist() == [7, 7]
    signs = reduce(np.kron, [np.array([1, -1])] * 12)
    assert (counts.numpy() @ signs).tolist() == [7, 7]

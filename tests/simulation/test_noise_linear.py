"""Linear noise: fitted lines, shot noise of the right size, gradients; and the random numbers under it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from qpeft.circuits import ansatz
from qpeft.errors import NoiseError, ShotsError, SimulationError
from qpeft.simulation.noise import EdgeNoise, LinearNoise, NoiseModel, QubitNoise, SampleKey, noisy_expectations
from qpeft.simulation.noise.counter import Stream

NOISE = LinearNoise(slopes=(0.9, 0.5), offsets=(0.0, -0.1))


def test_fit_finds_the_line_that_made_the_pairs():
    exact = torch.linspace(-1, 1, 30).reshape(3, 5, 2)
    fitted = LinearNoise.fit(exact, NOISE.apply(exact))
    assert_close(torch.tensor(fitted.slopes), torch.tensor(NOISE.slopes))
    assert_close(torch.tensor(fitted.offsets), torch.tensor(NOISE.offsets), atol=1e-6, rtol=0)


def test_fit_is_least_squares():
    rng = np.random.default_rng(0)
    exact, noisy = rng.normal(size=(2, 50, 3))
    fitted = LinearNoise.fit(torch.from_numpy(exact), torch.from_numpy(noisy))
    for column in range(3):
        slope, offset = np.polyfit(exact[:, column], noisy[:, column], 1)
        assert (fitted.slopes[column], fitted.offsets[column]) == pytest.approx((slope, offset))


def test_a_line_describes_depolarising_noise_well():
    circuit = ansatz.ring_cz(4)
    inputs = torch.empty(200, 4).uniform_(-3, 3, generator=torch.Generator().manual_seed(1))
    weights = torch.linspace(-2, 2, circuit.num_weights)
    noise = NoiseModel.uniform(4, qubit=QubitNoise(0.005), edge=EdgeNoise(0.05))
    exact, noisy = (noisy_expectations(circuit, inputs, weights, n) for n in (NoiseModel.uniform(4), noise))
    fitted = LinearNoise.fit(exact, noisy)
    assert all(0.6 < slope < 0.95 for slope in fitted.slopes)
    assert (fitted.apply(exact) - noisy).abs().max() < 0.1 * exact.std()


def test_equal_lines_are_equal_and_hash_equal():
    assert LinearNoise((1.0,), (0.0,)) == LinearNoise((1.0,), (0.0,))
    assert hash(LinearNoise((1.0,), (0.0,))) == hash(LinearNoise((1.0,), (0.0,)))


def test_without_shots_values_lie_on_the_line():
    exact = torch.tensor([[1.0, 1.0], [-1.0, 0.0]])
    assert_close(NOISE.apply(exact), torch.tensor([[0.9, 0.4], [-0.9, -0.1]]))


@pytest.mark.parametrize("shots", [1, 100])
def test_shot_noise_has_mean_zero_and_the_stated_deviation(shots):
    exact = torch.tensor([0.6, -0.4]).expand(100_000, 2)
    mean = torch.tensor([0.54, -0.3], dtype=torch.float64)
    values = NOISE.apply(exact, shots=shots, key=SampleKey(3)).double()
    deviation = ((1 - mean**2) / shots).sqrt()
    z = (values.mean(0) - mean) / (deviation / math.sqrt(100_000))
    assert z.abs().max() < 4
    # The standard deviation of a standard deviation of n normal numbers is 1 / sqrt(2 n) of it.
    assert_close(values.std(0) / deviation, torch.ones(2, dtype=torch.float64), atol=4 / math.sqrt(200_000), rtol=0)


def test_shot_noise_of_tokens_and_observables_is_independent():
    values = NOISE.apply(torch.zeros(100_000, 2), shots=10, key=SampleKey(5)).double()
    correlations = torch.corrcoef(torch.stack([values[:-1, 0], values[:-1, 1], values[1:, 0], values[1:, 1]]))
    assert (correlations - torch.eye(4)).abs().max() < 4.5 / math.sqrt(100_000)


def test_a_value_at_the_edge_or_beyond_has_no_shot_noise():
    beyond = LinearNoise((1.0,), (0.5,))
    assert_close(beyond.apply(torch.ones(3, 1), shots=1, key=SampleKey(0)), torch.full((3, 1), 1.5))


def test_the_gradient_is_the_slope_with_and_without_shots():
    for options in ({}, {"shots": 10, "key": SampleKey(0)}):
        exact = torch.rand(4, 2, requires_grad=True)
        NOISE.apply(exact, **options).sum().backward()
        assert_close(exact.grad, torch.tensor([0.9, 0.5]).expand(4, 2))


@pytest.mark.parametrize(
    ("options", "got"),
    [
        ({"shots": 0, "key": SampleKey(0)}, "got 0"),
        ({"shots": 1.5, "key": SampleKey(0)}, r"whole number; got 1\.5"),
        ({"shots": 5}, "got None"),
    ],
)
def test_shots_without_sense_or_key_are_refused(options, got):
    with pytest.raises(ShotsError, match=rf"{got}.*pass shots=None"):
        NOISE.apply(torch.zeros(1, 2), **options)


def test_wrong_number_of_observables_is_refused():
    with pytest.raises(NoiseError, match=r"for 2 observable\(s\); got shape \(1, 3\)"):
        NOISE.apply(torch.zeros(1, 3))


@pytest.mark.parametrize(("slopes", "offsets"), [((1.0,), (0.0, 0.0)), ((math.nan,), (0.0,)), ((1.0,), (math.inf,))])
def test_lines_that_cannot_be_are_refused(slopes, offsets):
    with pytest.raises(NoiseError):
        LinearNoise(slopes, offsets)


@pytest.mark.parametrize(
    ("exact", "noisy", "message"),
    [
        (torch.rand(4, 2), torch.rand(5, 2), "Values come in pairs|Type-check"),
        (torch.tensor([[0.1, 0.3], [0.2, 0.3]]), torch.rand(2, 2), r"observable\(s\) \[1\] do not vary"),
        (torch.rand(1, 2), torch.rand(1, 2), r"observable\(s\) \[0, 1\] do not vary"),
        (torch.empty(0, 2), torch.empty(0, 2), "do not vary"),
        (torch.tensor([[0.1], [math.nan]]), torch.rand(2, 1), "finite values"),
    ],
)
def test_pairs_that_fit_no_line_are_refused(exact, noisy, message):
    with pytest.raises(Exception, match=message):
        LinearNoise.fit(exact, noisy)


def philox(key: tuple[int, int], counter: list[int]) -> list[int]:
    """One block of Philox 4x64-10, written from the paper."""
    mask, (k0, k1), x = 2**64 - 1, key, list(counter)
    for _ in range(10):
        low, high = x[0] * 0xD2E7470EE14C6C93, x[2] * 0xCA5A826395121157
        x = [(high >> 64) ^ x[1] ^ k0, high & mask, (low >> 64) ^ x[3] ^ k1, low & mask]
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & mask, (k1 + 0xBB67AE8584CAA73B) & mask
    return x


def test_numbers_are_philox_of_the_key():
    # numpy counts up before each block, so the first has 1 in its lowest word.
    words = philox((11, 13), [1, 2, 14, 12]) + philox((11, 13), [2, 2, 14, 12])
    expected = [((word >> 12) + 0.5) / 2**52 for word in words]
    assert Stream(SampleKey(seed=11, step=12, module=13, call=14), index=2).uniforms(8).tolist() == expected


def test_numbers_depend_on_every_part_of_the_key_and_on_nothing_else():
    keys = [
        SampleKey(1),
        SampleKey(2),
        SampleKey(1, step=1),
        SampleKey(1, module=1),
        SampleKey(1, call=1),
        SampleKey(1, module="layers.0.q_proj"),
        SampleKey(1, module="layers.0.v_proj"),
    ]
    first = [Stream(key).uniforms(3).tolist() for key in keys]
    assert len({tuple(numbers) for numbers in first}) == len(keys)
    np.random.default_rng(0).random(3)
    torch.rand(3)
    assert [Stream(key).uniforms(3).tolist() for key in reversed(keys)] == first[::-1]
    assert Stream(keys[0], 1).uniforms(3).tolist() != first[0]


def test_a_stream_goes_on_where_it_stopped():
    stream = Stream(SampleKey(1))
    assert_close(torch.cat([stream.uniforms(3), stream.uniforms(2)]), Stream(SampleKey(1)).uniforms(5))


@pytest.mark.parametrize("bad", [-1, 2**64])
def test_keys_out_of_range_are_refused(bad):
    with pytest.raises(SimulationError, match=r"SampleKey.step must be a whole number from 0"):
        SampleKey(0, step=bad)

"""Samples of rows: of the size asked for, with the probabilities asked for, and standing for all rows."""

import math

import pytest
import torch
from torch.testing import assert_close
from z_scores import assert_unbiased

from qpeft.devices.gradients.row_sample import RowSample, draw_rows, inclusion_probabilities
from qpeft.simulation.noise import SampleKey
from qpeft.simulation.noise.counter import Stream

SIZES = torch.tensor([0.1, 5.0, 1.0, 0.0003, 2.0, 1.0, 0.4]).double()


def draws(sizes, count, repeats=500):
    return [draw_rows(sizes, count, Stream(SampleKey(0, step=step))) for step in range(repeats)]


@pytest.mark.parametrize("count", range(1, 7))
def test_probabilities_are_in_proportion_to_sizes_and_sum_to_the_count(count):
    found = inclusion_probabilities(SIZES, count)
    assert_close(found.sum().item(), float(count))
    uncertain = found < 1
    assert_close(found[uncertain] / found[uncertain].sum(), SIZES[uncertain] / SIZES[uncertain].sum())
    # Whoever is certain is larger than everyone who is not.
    assert not (~uncertain).any() or SIZES[~uncertain].min() >= SIZES[uncertain].max()
    assert found.max() <= 1


@pytest.mark.parametrize("count", [1, 3, 5])
def test_each_row_is_drawn_as_often_as_its_probability_says(count):
    samples = draws(SIZES, count)
    chosen = torch.stack([sample.chosen for sample in samples]).double()
    assert (chosen.sum(1) == count).all()
    probabilities = inclusion_probabilities(SIZES, count)
    certain = probabilities == 1
    assert (chosen[:, certain] == 1).all()
    expected = probabilities[~certain]
    z = (chosen[:, ~certain].mean(0) - expected) / (expected * (1 - expected) / len(samples)).sqrt()
    assert z.abs().max() < 4


def test_sums_over_samples_are_unbiased_and_their_variance_is_known():
    generator = torch.Generator().manual_seed(0)
    sizes = torch.randn(20, generator=generator, dtype=torch.float64).exp()
    numbers = sizes[:, None] * torch.randn(20, 6, generator=generator, dtype=torch.float64)
    samples = draws(sizes, 8)
    assert (inclusion_probabilities(sizes, 8) == 1).sum() == 2
    sums = torch.stack([sample.expand(numbers).sum(0) for sample in samples])
    assert_unbiased(sums, numbers.sum(0))
    found = torch.stack([sample.variance(numbers) for sample in samples]).mean(0)
    # A variance of 500 is off by 6 %, and the formula is an approximation.
    assert_close(found, sums.var(0), rtol=0.25, atol=0)
    assert_close(found.sum(), sums.var(0).sum(), rtol=0.15, atol=0)


def test_one_drawn_row_has_the_variance_of_samples_of_random_size():
    numbers = torch.tensor([[3.0], [1.0], [2.0]]).double()
    sample = RowSample(torch.tensor([False, False, True]), torch.tensor([0.5, 0.25, 0.25]).double())
    assert sample.variance(numbers).tolist() == [(1 - 0.25) * (2 / 0.25) ** 2]


@pytest.mark.parametrize("count", [7, 8, 100])
def test_as_many_as_there_are_is_everyone_for_certain(count):
    sample = draw_rows(SIZES, count, Stream(SampleKey(0)))
    assert sample.chosen.all()
    assert torch.equal(sample.expand(SIZES[:, None]), SIZES[:, None])
    assert sample.variance(SIZES[:, None]).item() == 0


def test_no_rows_have_no_sample_and_no_variance():
    sample = draw_rows(SIZES[:0], 3, Stream(SampleKey(0)))
    assert sample.variance(torch.zeros(0, 2)).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(("count", "bad"), [(1, math.nan), (3, math.nan), (1, math.inf), (3, math.inf)])
def test_a_row_that_is_not_finite_is_always_drawn(count, bad):
    sizes = SIZES.clone()
    sizes[2] = bad
    for sample in draws(sizes, count, repeats=50):
        assert sample.chosen[2]
        assert sample.chosen.sum() == count

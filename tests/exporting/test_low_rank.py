"""Thin factors of matrices, against numpy's singular values."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from qpeft.exporting.low_rank import cut_matrix, cut_product


@pytest.fixture
def thin():
    """Factors (5, 12) and (9, 5) in float64."""
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((5, 12), (9, 5)))


def best(matrix, rank):
    """The nearest matrix of this rank, and the share of the norm that it lacks."""
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    cut = (left[:, :rank] * values[:rank]) @ right[:rank]
    return cut, np.linalg.norm(matrix - cut) / np.linalg.norm(matrix)


@pytest.mark.parametrize("rank", [1, 3, 4])
def test_a_product_is_cut_to_the_nearest_of_its_rank(thin, rank):
    down, up = thin
    expected, error = best((up @ down).numpy(), rank)
    found = cut_product(down, up, rank)
    assert (found.rank, found.up.shape, found.down.shape) == (rank, (9, rank), (rank, 12))
    assert_allclose((found.up @ found.down).numpy(), expected, atol=1e-12)
    assert_allclose(found.error, error, rtol=1e-10)


@pytest.mark.parametrize("rank", [None, 5, 8])
def test_a_product_within_the_rank_stays_as_it_is(thin, rank):
    down, up = thin
    found = cut_product(down, up, rank)
    assert torch.equal(found.down, down)
    assert torch.equal(found.up, up)
    assert found.error == 0


@pytest.mark.parametrize(("rank", "at_most", "kept"), [(None, 64, 5), (None, 3, 3), (2, 64, 2), (9, 3, 5)])
def test_a_matrix_gets_its_own_rank_or_what_is_allowed(thin, rank, at_most, kept):
    down, up = thin
    matrix = (up @ down).float()
    expected, error = best(matrix.double().numpy(), kept)
    found = cut_matrix(matrix, rank, at_most=at_most)
    assert found.rank == kept
    assert_allclose((found.up @ found.down).numpy(), expected, atol=1e-5)
    assert_allclose(found.error, error if kept < 5 else 0, rtol=1e-5)


def test_zero_has_rank_one_and_loses_nothing():
    found = cut_matrix(torch.zeros(4, 3), None, at_most=8)
    assert (found.rank, found.error, found.is_zero) == (1, 0.0, True)

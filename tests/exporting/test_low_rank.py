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


def of_rank(rank, shape, dtype, *, decay=1.0, scale=1.0):
    """A product of thin factors as layers compute it: in float32 at least, then rounded to `dtype`."""
    wide = torch.promote_types(dtype, torch.float32)
    generator = torch.Generator().manual_seed(5)
    down = (
        torch.randn(rank, shape[1], generator=generator, dtype=torch.float64)
        * torch.logspace(0, np.log10(decay), rank)[:, None]
    )
    up = torch.randn(shape[0], rank, generator=generator, dtype=torch.float64)
    return (scale * (up.to(dtype).to(wide) @ down.to(dtype).to(wide))).to(dtype)


@pytest.mark.parametrize("shape", [(576, 576), (192, 576), (1536, 576), (64, 2048), (24, 40)])
@pytest.mark.parametrize("rank", [1, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_rounding_of_a_matrix_is_no_rank_of_it(shape, rank, dtype):
    found = cut_matrix(of_rank(rank, shape, dtype, decay=0.1), None, at_most=64)
    assert (found.rank, found.error) == (rank, 0.0)


def test_float16_numbers_too_small_for_all_their_digits_are_no_rank_either():
    matrix = of_rank(8, (576, 576), torch.float16, scale=1e-6)
    assert matrix.abs().max() < torch.finfo(torch.float16).smallest_normal
    assert cut_matrix(matrix, None, at_most=64).rank == 8


@pytest.mark.parametrize(("dtype", "decay"), [(torch.float32, 1e-5), (torch.float16, 1e-2), (torch.bfloat16, 0.03)])
def test_a_direction_above_rounding_stays_however_small(dtype, decay):
    assert cut_matrix(of_rank(8, (576, 576), dtype, decay=decay), None, at_most=64).rank == 8


def test_sums_of_many_terms_round_more_and_get_no_rank_for_it():
    assert cut_matrix(of_rank(128, (576, 576), torch.float32, decay=1e-3), None, at_most=200).rank == 128


@pytest.mark.parametrize("decay", [1.0, 1e-2, 1e-9])
def test_a_matrix_of_full_rank_is_cut_to_the_nearest_one(decay):
    matrix = of_rank(300, (300, 320), torch.float64, decay=decay)
    expected, error = best(matrix.numpy(), 20)
    found = cut_matrix(matrix, None, at_most=20)
    assert found.rank == 20
    assert_allclose((found.up @ found.down).numpy(), expected, atol=1e-9 * float(matrix.norm()))
    assert_allclose(found.error, error, rtol=1e-6)

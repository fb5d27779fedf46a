"""Widths as products of modes: what the documented rule says, and what holds for every width."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qpeft.errors import FactorizationError
from qpeft.tensor_networks import factorize

PUBLISHED = {
    256: (4, 4, 4, 4),
    512: (8, 4, 4, 4),
    1024: (8, 8, 4, 4),
    2048: (8, 8, 8, 4),
    2560: (8, 8, 8, 5),
    3584: (8, 8, 8, 7),
    4096: (8, 8, 8, 8),
    5120: (10, 8, 8, 8),
    18944: (37, 8, 8, 8),
}
"""Mode table of the method's released code, where it is the most balanced one (20480 and 27648 are not)."""


@pytest.mark.parametrize(("width", "factors"), PUBLISHED.items())
def test_four_modes_of_published_widths_are_the_published_ones(width, factors):
    assert factorize(width, 4).factors == factors


@pytest.mark.parametrize(
    ("width", "factors"),
    [(192, (8, 6, 4)), (576, (9, 8, 8)), (896, (14, 8, 8)), (1536, (16, 12, 8)), (14336, (32, 28, 16))],
)
def test_three_modes_of_common_widths_are_balanced_and_exact(width, factors):
    assert factorize(width, 3).factors == factors


@pytest.mark.parametrize(("width", "padded"), [(97, 98), (997, 1000), (65537, 65550), (199999, 200000)])
def test_prime_widths_are_padded_to_a_near_product(width, padded):
    modes = factorize(width, 3)
    assert modes.padded == padded
    assert modes.factors[0] <= 2 * padded ** (1 / 3)


@pytest.mark.parametrize("num_cores", [1, 2, 3, 4])
def test_modes_are_the_product_of_smallest_sum(num_cores):
    for width in range(1, 200):
        modes = factorize(width, num_cores)
        assert sum(modes.factors) == min(map(sum, _products(modes.padded, num_cores)))


@settings(max_examples=300)
@given(width=st.integers(1, 200_000), num_cores=st.integers(1, 6))
def test_any_width_has_descending_modes_whose_product_covers_it(width, num_cores):
    modes = factorize(width, num_cores)
    assert len(modes.factors) == num_cores
    assert modes.factors == tuple(sorted(modes.factors, reverse=True))
    assert min(modes.factors) >= 1
    assert modes.width == width
    assert modes.padded == math.prod(modes.factors) >= width
    assert modes.factors[0] <= max(1, 4 * modes.padded ** (1 / num_cores))


@settings(max_examples=300)
@given(width=st.integers(64, 200_000), num_cores=st.integers(2, 4))
def test_padding_stays_below_a_ninth_of_the_width(width, num_cores):
    assert factorize(width, num_cores).padded <= width * 10 / 9


def test_one_core_takes_the_whole_width():
    assert factorize(997, 1).factors == (997,)


@pytest.mark.parametrize(("width", "num_cores"), [(0, 3), (-8, 3), (8, 0)])
def test_widths_and_core_counts_below_one_are_refused(width, num_cores):
    with pytest.raises(FactorizationError, match=f"at least 1; got {width} and {num_cores}"):
        factorize(width, num_cores)


def _products(number, count):
    """All ways to write `number` as an ordered product of `count` factors."""
    if count == 1:
        return [(number,)]
    return [
        (factor, *rest)
        for factor in range(1, number + 1)
        if number % factor == 0
        for rest in _products(number // factor, count - 1)
    ]

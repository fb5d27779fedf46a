"""Factors that a config gives for widths: what is refused."""

import pytest

from qpeft.adapters.base import check_factors, given_factors
from qpeft.errors import AdapterError
from qpeft.tensor_networks import factorize


@pytest.mark.parametrize(
    ("lists", "sentence"),
    [
        ([16, 8, 8, 4], "axes must hold a list for each width, as .*; got .16, 8, 8, 4."),
        ([], "axes must hold a list for each width"),
        ([[]], "axes must hold a list for each width"),
        ("16.8.8.4", "axes must hold a list for each width"),
        ([[16, 0]], r"every number of axes \[16, 0\] must be a whole number of at least 1; got 0"),
        ([[4, True]], r"every number of axes \[4, True\] must be a whole number"),
        ([[4, 3], [6, 2]], "two lists for one width: the products are 12, 12"),
    ],
    ids=str,
)
def test_lists_that_are_no_factors_of_widths_are_refused(lists, sentence):
    with pytest.raises(AdapterError, match=sentence):
        check_factors("axes", lists)


def test_each_width_takes_the_list_with_its_product():
    lists = [[4, 3], [5, 2]]
    assert [given_factors("axes", lists, width, factorize(width, 2)).factors for width in (10, 12)] == [(5, 2), (4, 3)]

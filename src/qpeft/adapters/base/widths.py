"""Factors that a config gives for the widths of layers, such as [[16, 8, 8, 4], [8, 8, 4, 4]] for 4096 and 1024."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from qpeft.adapters.base.config import check_counts
from qpeft.errors import AdapterError
from qpeft.tensor_networks import Modes


def check_factors(option_name: str, lists: Any) -> None:
    """Raises: AdapterError unless `lists` holds lists of whole numbers, each with a product of its own."""
    if not isinstance(lists, list) or not lists or not all(isinstance(factors, list) and factors for factors in lists):
        raise AdapterError(f"{option_name} must hold a list for each width, as [[16, 8, 8, 4]]; got {lists!r}.")
    for factors in lists:
        check_counts({f"every number of {option_name} {factors}": factor for factor in factors})
    products = [math.prod(factors) for factors in lists]
    if len({*products}) < len(products):
        raise AdapterError(
            f"{option_name} has two lists for one width: the products are {', '.join(map(str, products))}."
        )


def given_factors(option_name: str, lists: Sequence[Sequence[int]], width: int, balanced: Modes) -> Modes:
    """The list whose product is the width. Raises: AdapterError if there is none, proposing the balanced factors."""
    given = {math.prod(factors): tuple(factors) for factors in lists}
    if width not in given:
        raise AdapterError(
            f"{option_name} has factors of {', '.join(map(str, given))}, but a layer has width {width}: add factors "
            f"whose product is {width}, such as {list(balanced.factors)}, or leave {option_name} out."
        )
    return Modes(width, given[width])

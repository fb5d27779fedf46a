"""Factorisation of a width into balanced modes, the dimensions of a matrix product operator's cores.

The rule, for any width:

1. Of all ways to write the width as an ordered product of `num_cores` factors, largest first, take the one with the
   smallest sum: the most balanced one, and the cheapest to store.
2. If its largest factor exceeds four times the balanced size width**(1/num_cores) (a prime width, say), the width is
   padded: the smallest larger number whose largest factor stays within twice the balanced size takes its place, and
   whoever contracts the operator drops the surplus columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from qpeft.errors import FactorizationError

AWKWARD = 4.0
"""A width is padded when its largest factor exceeds the balanced size this many times."""

BALANCED = 2.0
"""A padded width's largest factor stays within this many times the balanced size."""


@dataclass(frozen=True)
class Modes:
    """A width and the factors that stand for it; `padded` exceeds `width` where no balanced product equals it."""

    width: int
    factors: tuple[int, ...]

    @property
    def padded(self) -> int:
        """Product of the factors."""
        return math.prod(self.factors)


@lru_cache(maxsize=4096)
def factorize(width: int, num_cores: int) -> Modes:
    """Modes of `width` for `num_cores` cores, largest first, by the rule above.

    Raises: FactorizationError if width or num_cores is below 1.
    """
    if width < 1 or num_cores < 1:
        raise FactorizationError(f"width and num_cores must be at least 1; got {width} and {num_cores}.")
    candidate, limit = width, AWKWARD
    while True:
        factors = _most_balanced(candidate, num_cores, largest=candidate)
        assert factors is not None
        if factors[0] <= max(1.0, limit * candidate ** (1 / num_cores)):
            return Modes(width, factors)
        candidate, limit = candidate + 1, BALANCED


@lru_cache(maxsize=65536)
def _most_balanced(product: int, count: int, largest: int) -> tuple[int, ...] | None:
    """`count` factors of `product`, descending and at most `largest`, of smallest sum; None if there are none."""
    if count == 1:
        return (product,) if product <= largest else None
    best: tuple[int, ...] | None = None
    # Descending factors: the first is at least the count-th root, so small divisors need not be tried.
    for factor in _divisors(product):
        if factor > largest or factor**count < product:
            continue
        rest = _most_balanced(product // factor, count - 1, factor)
        if rest is not None and (best is None or factor + sum(rest) < sum(best)):
            best = (factor, *rest)
    return best


@lru_cache(maxsize=65536)
def _divisors(number: int) -> tuple[int, ...]:
    small = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return tuple(sorted({*small, *(number // d for d in small)}))

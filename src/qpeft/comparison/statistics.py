"""Which differences between two methods can be told from chance. docs/compare.md explains the choices.

Losses come as sums in nats per seed and item, (seeds, items), beside the number of tokens of every item; a loss is all
nats over all tokens, a mean over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# Not scipy.stats, which adds a second to the start of every command that compares; it asks these functions too.
from scipy.optimize import brentq
from scipy.special import bdtr, ndtri, stdtrit

Array = npt.NDArray[np.float64]

LEVEL = 0.95
POWER = 0.8
RESAMPLES = 4000
RESAMPLES_AT_ONCE = 500


@dataclass(frozen=True)
class Difference:
    """A paired difference of two losses, nats per token; below zero the first is better.

    `low`, `high`: its 95 % interval. `p`: two-sided, of no difference. `per_seed`: the difference of every seed.
    `detectable`: the smallest true difference that a study of this spread and size finds in 80 % of cases.
    """

    estimate: float
    low: float
    high: float
    p: float
    detectable: float
    per_seed: tuple[float, ...]

    def times(self, factor: float) -> Difference:
        """The same in another unit, `factor` of which make one of these."""
        return Difference(
            factor * self.estimate,
            factor * self.low,
            factor * self.high,
            self.p,
            factor * self.detectable,
            tuple(factor * one for one in self.per_seed),
        )


def paired_difference(first: Array, second: Array, tokens: Array, *, seed: int = 0) -> Difference:
    """The difference first - second, resampling seeds and items together.

    What the items leave open is found by a bootstrap, which draws them with replacement. What the seeds leave open is
    found by Student's t over their differences: a handful of seeds drawn with replacement would reach no further than
    the handful itself, and its intervals would miss the truth three times as often as they say. Both distances from
    the estimate are then put together as the sides of a right angle.
    With one seed, only items vary, and the interval says nothing of other seeds.

    Args:
        first, second: nats, (seeds, items), the same seeds and items in both, and at least two items.
        tokens: of every item, (items,).
        seed: of the resampling.
    """
    nats = first - second
    estimate = float(nats.mean(0).sum() / tokens.sum())
    spread = _spread(nats, tokens)
    quantiles = np.quantile(_resampled(nats.mean(0), tokens, seed), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    # From the normal's quantiles and the variance of a sample to those of so many items.
    widening = spread.items_factor((1 + LEVEL) / 2)
    below, above = (math.hypot(spread.of_seeds(LEVEL), widening * (value - estimate)) for value in quantiles)
    return Difference(
        estimate,
        estimate - below,
        estimate + above,
        spread.p_value(abs(estimate)),
        spread.distance(LEVEL) + spread.distance(2 * POWER - 1),
        tuple((nats.sum(1) / tokens.sum()).tolist()),
    )


def mean_interval(nats: Array, tokens: Array, *, seed: int = 0) -> Difference:
    """A loss by itself with its interval, as `paired_difference` from zero."""
    return paired_difference(nats, np.zeros_like(nats), tokens, seed=seed)


@dataclass(frozen=True)
class _Spread:
    """Standard errors of a mean over `num_seeds` seeds and `num_items` items that come from either; see `_spread`."""

    seeds_error: float
    items_error: float
    num_seeds: int
    num_items: int

    def of_seeds(self, level: float) -> float:
        """Half the width of the interval of this level that seeds alone would give; 0 for a single seed."""
        if self.num_seeds == 1:
            return 0.0
        return self.seeds_error * float(stdtrit(self.num_seeds - 1, (1 + level) / 2))

    def distance(self, level: float) -> float:
        """Half the width of the interval of this level, for a distribution without skew."""
        of_items = self.items_error * float(stdtrit(self.num_items - 1, (1 + level) / 2))
        return math.hypot(self.of_seeds(level), of_items)

    def p_value(self, distance: float) -> float:
        """One minus the level of the interval that reaches just so far."""
        if not distance or self.distance(1 - MINIMAL_P) <= distance:
            return MINIMAL_P if distance else 1.0
        return float(brentq(lambda p: self.distance(1 - p) - distance, MINIMAL_P, 1.0))

    def items_factor(self, probability: float) -> float:
        """By how much the bootstrap of few items is too narrow."""
        correction = math.sqrt(self.num_items / (self.num_items - 1))
        return correction * float(stdtrit(self.num_items - 1, probability) / ndtri(probability))


MINIMAL_P = 1e-6
"""Smaller ones are not told apart."""


def _spread(nats: Array, tokens: Array) -> _Spread:
    """How much the mean difference would vary over other seeds and over other items.

    Each item's share of the ratio (all nats / all tokens) is linearised: nats minus the mean rate times its tokens.
    """
    seeds, items = nats.shape
    shares = (nats - nats.mean(0).sum() / tokens.sum() * tokens) / tokens.mean()
    seeds_error = float(shares.mean(1).std(ddof=1)) / math.sqrt(seeds) if seeds > 1 else 0.0
    items_error = float(shares.mean(0).std(ddof=1)) / math.sqrt(items)
    return _Spread(seeds_error, items_error, seeds, items)


def _resampled(nats: Array, tokens: Array, seed: int) -> Array:
    """The ratio for RESAMPLES draws of items with replacement."""
    generator, items, found = np.random.default_rng(seed), len(tokens), []
    for start in range(0, RESAMPLES, RESAMPLES_AT_ONCE):
        count = min(RESAMPLES_AT_ONCE, RESAMPLES - start)
        times = generator.multinomial(items, np.full(items, 1 / items), size=count)
        found.append((times @ nats) / (times @ tokens))
    return np.concatenate(found)


def sign_test(differences: Sequence[float] | Array) -> float:
    """Exact two-sided p of as many differences above zero as below; ties are left out.

    On right and wrong answers to the same questions (1 - 0, 0 - 1) this is McNemar's exact test.
    """
    signs = np.sign(np.asarray(differences))
    above, below = int((signs > 0).sum()), int((signs < 0).sum())
    count = above + below
    return min(1.0, 2 * float(bdtr(min(above, below), count, 0.5)))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for their number (Holm's step-down procedure), in their order."""
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable").tolist()):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected

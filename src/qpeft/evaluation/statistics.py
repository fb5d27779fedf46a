"""Which differences between two methods can be told from chance. docs/compare.md explains the choices.

Losses come as sums in nats per seed and item, (seeds, items), beside the number of tokens of every item; a loss is all
nats over all tokens, a mean over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

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
MINIMAL_P = 1e-6
"""Smaller ones are not told apart."""


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
        """Return the same in another unit, `factor` of which make one of these."""
        scaled = {name: factor * getattr(self, name) for name in ("estimate", "low", "high", "detectable")}
        return replace(self, **scaled, per_seed=tuple(factor * one for one in self.per_seed))


def paired_difference(first: Array, second: Array, tokens: Array, *, seed: int = 0) -> Difference:
    """Return the difference first - second, with an interval over other seeds and other items of the same kind.

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
    num_seeds, num_items = nats.shape
    estimate = float(nats.mean(0).sum() / tokens.sum())
    # Standard errors. Each item's share of the ratio (all nats / all tokens) is linearised: its nats minus the mean
    # rate times its tokens.
    shares = (nats - nats.mean(0).sum() / tokens.sum() * tokens) / tokens.mean()
    seeds_error = float(shares.mean(1).std(ddof=1)) / math.sqrt(num_seeds) if num_seeds > 1 else 0.0
    items_error = float(shares.mean(0).std(ddof=1)) / math.sqrt(num_items)

    def of_seeds(level: float) -> float:
        """Return half the width of the interval of this level that seeds alone would give; 0 for a single seed."""
        return seeds_error * float(stdtrit(num_seeds - 1, (1 + level) / 2)) if num_seeds > 1 else 0.0

    def distance(level: float) -> float:
        """Return half the width of the interval of this level, for a distribution without skew."""
        return math.hypot(of_seeds(level), items_error * float(stdtrit(num_items - 1, (1 + level) / 2)))

    generator, drawn = np.random.default_rng(seed), []
    for start in range(0, RESAMPLES, RESAMPLES_AT_ONCE):
        # How often each item is drawn is all that a draw with replacement says.
        count = min(RESAMPLES_AT_ONCE, RESAMPLES - start)
        times = generator.multinomial(num_items, np.full(num_items, 1 / num_items), size=count)
        drawn.append((times @ nats.mean(0)) / (times @ tokens))
    quantiles = np.quantile(np.concatenate(drawn), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    # The bootstrap of few items is too narrow: from the normal's quantiles and the variance of a sample to Student's.
    probability = (1 + LEVEL) / 2
    widening = math.sqrt(num_items / (num_items - 1)) * float(stdtrit(num_items - 1, probability) / ndtri(probability))
    below, above = (math.hypot(of_seeds(LEVEL), widening * (value - estimate)) for value in quantiles)

    # The p-value is one minus the level of the interval that reaches just as far as zero.
    far = abs(estimate)
    if not far or distance(1 - MINIMAL_P) <= far:
        p = MINIMAL_P if far else 1.0
    else:
        p = float(brentq(lambda p: distance(1 - p) - far, MINIMAL_P, 1.0))
    detectable = distance(LEVEL) + distance(2 * POWER - 1)
    per_seed = tuple((nats.sum(1) / tokens.sum()).tolist())
    return Difference(estimate, estimate - below, estimate + above, p, detectable, per_seed)


def mean_interval(nats: Array, tokens: Array, *, seed: int = 0) -> Difference:
    """Return a loss by itself with its interval, as `paired_difference` from zero.

    Args:
        nats: (seeds, items).
        tokens, seed: as there.
    """
    return paired_difference(nats, np.zeros_like(nats), tokens, seed=seed)


def sign_test(differences: Sequence[float] | Array) -> float:
    """Return the exact two-sided p of as many differences above zero as below; ties are left out.

    On right and wrong answers to the same questions (1 - 0, 0 - 1) this is McNemar's exact test.
    """
    signs = np.sign(np.asarray(differences))
    above, below = int((signs > 0).sum()), int((signs < 0).sum())
    return min(1.0, 2 * float(bdtr(min(above, below), above + below, 0.5)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values corrected for their number (Holm's step-down procedure), in their order."""
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable").tolist()):
        # Monotone: a larger p-value never gets a smaller correction than the one before it.
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected

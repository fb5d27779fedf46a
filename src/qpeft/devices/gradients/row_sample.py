"""A random sample of rows, larger ones more often, and what sums over it say of sums over all rows.

Each row is in the sample with a known probability and then counts by its inverse, so a sum over the sample is an
unbiased estimate of the sum over all rows (Horvitz and Thompson, A generalization of sampling without replacement from
a finite universe, 1952). Drawn systematically from a random order (Hartley and Rao, Sampling with unequal probabilities
and without replacement, 1962), which makes the sample's size exact. Variances by Hajek's approximation in the form of
Deville and Tille, Variance approximation under balanced sampling, 2005.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qpeft.simulation.noise.counter import Stream


@dataclass(frozen=True)
class RowSample:
    """Which rows are taken, (rows,), and the probability with which each could have been, (rows,), in [0, 1]."""

    chosen: Tensor
    probabilities: Tensor

    @classmethod
    def of_all(cls, num_rows: int) -> RowSample:
        """Every row, for certain."""
        return cls(torch.ones(num_rows, dtype=torch.bool), torch.ones(num_rows, dtype=torch.float64))

    def __getitem__(self, rows: Tensor) -> RowSample:
        """The same of the rows of a mask."""
        return RowSample(self.chosen[rows], self.probabilities[rows])

    def expand(self, numbers: Tensor) -> Tensor:
        """Numbers whose sum over rows estimates that over all rows: by inverse probability, zero where not chosen."""
        return (numbers / self.probabilities[:, None]).where(self.chosen[:, None], 0.0)

    def variance(self, numbers: Tensor) -> Tensor:
        """Of the sum of expanded numbers, (rows, n) to (n,), as far as it comes from the choice of rows.

        A single row says nothing of the spread; its variance is that of samples whose size is random, which is larger.
        """
        drawn = self.chosen & (self.probabilities < 1)
        size = int(drawn.sum())
        if size == 0:
            return numbers.new_zeros(numbers.shape[1])
        left_out, expanded = (1 - self.probabilities[drawn])[:, None], self.expand(numbers)[drawn]
        if size == 1:
            return (left_out * expanded.square()).sum(0)
        mean = (left_out * expanded).sum(0) / left_out.sum(0)
        return (left_out * (expanded - mean).square()).sum(0) * size / (size - 1)


def draw_rows(sizes: Tensor, count: int, stream: Stream) -> RowSample:
    """At most `count` rows, with probabilities in proportion to their positive sizes, (rows,), float64."""
    if count >= len(sizes):
        return RowSample.of_all(len(sizes))
    if not sizes.isfinite().all():
        # One of them is taken for certain, so that the sum is not finite either.
        sizes = torch.where(sizes.isfinite(), 1e-9, 1.0).double()
    probabilities = inclusion_probabilities(sizes, count)
    order = stream.uniforms(len(sizes)).argsort()
    order = order[probabilities[order] < 1]
    start = stream.uniforms(1)
    ends = probabilities[order].cumsum(0)
    ends[-1:] = ends[-1:].round()  # the probabilities of what is not certain sum to a whole number
    hits = (ends - start).floor().diff(prepend=torch.tensor([-1.0]).double())
    chosen = probabilities == 1
    chosen[order[hits > 0]] = True
    return RowSample(chosen, probabilities)


def inclusion_probabilities(sizes: Tensor, count: int) -> Tensor:
    """In proportion to the sizes, at most 1, and with sum `count`, fewer than there are rows; (rows,)."""
    certain = torch.zeros(len(sizes), dtype=torch.bool)
    while True:
        rest = sizes.where(~certain, 0.0)
        probabilities = (rest * (count - certain.sum()) / rest.sum()).where(~certain, 1.0)
        more = probabilities >= 1
        if torch.equal(more, certain):
            return probabilities
        certain = more

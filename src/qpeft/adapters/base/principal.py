"""Principal directions of vectors that pass by, from one look at each."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

OVERSAMPLING = 64
"""Columns of the sketch beyond the directions asked for; more are closer to the whole."""
NEGLIGIBLE = 1e-12
"""Of the largest second moment: below, a direction is rounding. Not higher: single features of language models are
thousands of times as large as the others.
"""


class InputSketch:
    """Second moments of vectors, as their product with a thin random matrix: M = mean of x x^T is never formed.

    Source: fixed-rank Nystroem approximation from one pass, Tropp, Yurtsever, Udell and Cevher 2017
    (arXiv:1706.05736), algorithm 3. Exact where the vectors span no more directions than the sketch has columns.

    Args:
        width: of the vectors.
        rank: directions that will be asked for, at most `width`.
        generator: of the random matrix; None for torch's global one.
    """

    def __init__(self, width: int, rank: int, generator: torch.Generator | None) -> None:
        columns = min(width, rank + OVERSAMPLING)
        random = torch.randn(width, columns, generator=generator, dtype=torch.float64)
        self._test = torch.linalg.qr(random).Q
        self._product = torch.zeros(width, columns, dtype=torch.float64)
        self._trace = 0.0
        self.rank, self.count = rank, 0

    def add(self, x: Float[Tensor, "vectors width"]) -> None:
        """Take in some vectors, each of the same weight."""
        # In two steps: not every device has float64, and it would be four times as much to move.
        x = x.to(self._test.device).to(torch.float64)
        self._product += x.T @ (x @ self._test)
        self._trace += x.square().sum().item()
        self.count += len(x)

    @property
    def mean_square(self) -> float:
        """Mean squared length of the vectors."""
        return self._trace / max(self.count, 1)

    def directions(self) -> tuple[Float[Tensor, "rank width"], Float[Tensor, " rank"]]:
        """Unit vectors of largest second moment, largest first, and the moments; float64.

        Signs are such that the largest entry of each is positive. Moments of directions that the vectors do not reach
        are 0.
        """
        product = self._product / max(self.count, 1)
        # Shifted, as the source advises, so that rounding leaves the inner matrix positive.
        shift = torch.finfo(torch.float64).eps * product.norm() * product.shape[1] ** 0.5
        shift = torch.clamp(shift, min=torch.finfo(torch.float64).tiny ** 0.5)
        shifted = product + shift * self._test
        inner = self._test.T @ shifted
        root = torch.linalg.cholesky((inner + inner.T) / 2)
        vectors, values, _ = torch.linalg.svd(
            torch.linalg.solve_triangular(root, shifted.T, upper=False).T, full_matrices=False
        )
        moments = (values.square() - shift).clamp_min(0)[: self.rank]
        found = vectors[:, : self.rank].T
        largest = found.abs().argmax(1, keepdim=True)
        threshold = NEGLIGIBLE * moments.max() + torch.finfo(torch.float32).tiny
        moments = torch.where(moments > threshold, moments, 0.0)
        return found * found.gather(1, largest).sign(), moments

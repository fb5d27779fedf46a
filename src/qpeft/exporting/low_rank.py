"""Matrices as products of two thin ones: exactly, or as near as a rank allows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

ROUNDING = 1e-6
"""Singular values below this share of the largest are rounding of float32."""


@dataclass(frozen=True)
class LowRank:
    """A matrix `up` @ `down`, and what it lacks.

    Attributes:
        down: (rank, in_features).
        up: (out_features, rank).
        error: norm of what was cut off relative to that of the whole (Frobenius); 0 for nothing.
    """

    down: Float[Tensor, "rank in_features"]
    up: Float[Tensor, "out_features rank"]
    error: float

    @property
    def rank(self) -> int:
        """Width between the two."""
        return len(self.down)

    @property
    def is_zero(self) -> bool:
        """Whether the product is exactly zero."""
        return not (self.down.any() and self.up.any())


def cut_product(down: Float[Tensor, "k in_features"], up: Float[Tensor, "out_features k"], rank: int | None) -> LowRank:
    """up @ down in its best approximation of this rank at most; as it is for None. Never forms the product."""
    if rank is None or rank >= len(down):
        return LowRank(down, up, error=0.0)
    left, up_core = torch.linalg.qr(up.double())
    right, down_core = torch.linalg.qr(down.double().T)
    inner_left, values, inner_right = torch.linalg.svd(up_core @ down_core.T)
    return LowRank(
        (inner_right[:rank] @ right.T).to(down.dtype),
        (left @ (inner_left[:, :rank] * values[:rank])).to(up.dtype),
        error=_lost(values, rank),
    )


def cut_matrix(matrix: Float[Tensor, "out_features in_features"], rank: int | None, *, at_most: int) -> LowRank:
    """A matrix in its best approximation of this rank at most; for None, of its own rank, if `at_most` allows."""
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    own = max(1, int((values > ROUNDING * values[0]).sum()))
    kept = min(own, at_most if rank is None else rank)
    # What lies beyond the matrix's own rank is rounding, and no loss.
    return LowRank(right[:kept], left[:, :kept] * values[:kept], error=_lost(values[:own], kept))


def _lost(values: Tensor, rank: int) -> float:
    whole = float(values.norm())
    return float(values[rank:].norm()) / whole if whole else 0.0

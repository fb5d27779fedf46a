"""Matrices as products of two thin ones: exactly, or as near as a rank allows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

SUMMED, ROUNDED_ONCE = 4.0, 1.0
"""How far rounding reaches, in units of `_rounding`: where every term of a sum is rounded (float32, float64), and where
only its result is (half precision). Measured: at most 2.5 and 0.8, over shapes of 9 to 2048 and sums of 4 to 256 terms.
"""
DECOMPOSED = 32.0
"""Errors of a decomposition in float64, in units of its precision times the norm of the matrix."""

SKETCHED_BEYOND = 16
"""Directions by which a sketch of a matrix is wider than the rank that is looked for."""


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
    """A matrix in its best approximation of this rank at most; for None, of its own rank, if `at_most` allows.

    Args:
        matrix: in the type that it was computed in, since that says which of its directions are rounding.
        rank: most that is wanted.
        at_most: the same where `rank` is None.

    Returns:
        Factors in float64. What lies beyond the matrix's own rank is rounding, and no loss.
    """
    wanted, rounding = at_most if rank is None else rank, _rounding(matrix)
    left, values, right = _singular(matrix.double(), wanted + SKETCHED_BEYOND, rounding)
    own = max(1, int((values > rounding).sum()))
    kept = min(own, wanted)
    return LowRank(right[:kept], left[:, :kept] * values[:kept], error=_lost(values[:own], kept))


def _rounding(matrix: Tensor) -> float:
    """The largest singular value that rounding of the entries may make, where the matrix itself has none.

    Errors of independent entries, each of size sigma, have singular values up to sigma (sqrt(rows) + sqrt(columns)).
    """
    rows, columns = matrix.shape
    digits = torch.finfo(matrix.dtype)
    # Below the smallest normal number steps between numbers shrink no further, and float16 has weights there.
    typical = max(float(matrix.double().norm()) / (rows * columns) ** 0.5, digits.smallest_normal)
    reach = ROUNDED_ONCE if digits.bits < 32 else SUMMED
    of_entries = reach * digits.eps * typical * (rows**0.5 + columns**0.5)
    return float(max(of_entries, DECOMPOSED * torch.finfo(torch.float64).eps * float(matrix.double().norm())))


def _singular(matrix: Tensor, width: int, rounding: float) -> tuple[Tensor, Tensor, Tensor]:
    """Singular vectors and values of a float64 matrix, at least all those that are more than rounding.

    A matrix of small rank lies in the span of a few of its random combinations, which takes a hundredth of the time of
    a whole decomposition. Whether it does is measured; where it does not, the whole is decomposed.
    """
    rows, columns = matrix.shape
    if 2 * width < min(rows, columns):
        mixing = torch.randn(columns, width, generator=torch.Generator().manual_seed(0), dtype=matrix.dtype)
        basis = torch.linalg.qr(matrix @ mixing.to(matrix.device)).Q
        inside = basis.T @ matrix
        # All that rounding leaves outside, over all directions, is about so large.
        if (matrix - basis @ inside).norm() <= rounding * min(rows, columns) ** 0.5:
            left, values, right = torch.linalg.svd(inside, full_matrices=False)
            return basis @ left, values, right
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    return left, values, right


def _lost(values: Tensor, rank: int) -> float:
    whole = float(values.norm())
    return float(values[rank:].norm()) / whole if whole else 0.0

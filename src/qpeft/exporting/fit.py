"""The linear map that stands in best for a bottleneck."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from qpeft.adapters.base import FactoredBranch
from qpeft.errors import DataError
from qpeft.exporting.moments import Moments

CUTOFF = 1e-10
"""Directions in which h varies by less than this share of its largest variance count as rounding, and are left out."""

LINEAR = 1e-5
"""A bottleneck this close to linear, relative to its largest value, is linear up to rounding in float32."""

PROBES = 64


Constant = Literal["keep", "absorb", "drop"]
"""What becomes of the constant of a fit: it is kept, or the matrix takes on what it can of it, or it is lost."""


@dataclass(frozen=True)
class LinearFit:
    """z is about `matrix` h + `constant`.

    Attributes:
        matrix: (rank, rank), float64.
        constant: (rank,), float64.
        explained: share of the update's variance over tokens that the best matrix and constant give, 1 for all of it.
        constant_share: size of what the best constant adds to the update, relative to the update's root mean square.
        missed: root mean square of what this fit leaves of the update, relative to the update's.
        tokens: that it was fitted on; 0 for a bottleneck that is linear.
    """

    matrix: Float[Tensor, "rank rank"]
    constant: Float[Tensor, " rank"]
    explained: float = 1.0
    constant_share: float = 0.0
    missed: float = 0.0
    tokens: int = 0


def fit_bottleneck(moments: Moments, up: Float[Tensor, "rank out_features"], constant: Constant) -> LinearFit:
    """The least-squares fit of z to h over all tokens that `moments` has seen.

    Centred, z = M h + c, which is the best with a constant; `absorb` fits z = M h, the best without one.

    The matrix that comes nearest to z comes nearest to the update as well, since each row of a least-squares fit is
    found by itself and `up` only mixes rows. So `up` is needed for the shares alone, which are those of the update.

    Raises: DataError if there were no more tokens than unknowns in a row.
    """
    if moments.tokens <= moments.rank + 1:
        raise DataError(
            f"{moments.tokens} tokens of calibration text do not determine a linear map of rank {moments.rank}; "
            "give more of it: thousands of tokens are usual."
        )
    mean_h, mean_z = moments.means()
    of_h, of_zh, of_z = moments.covariances()
    matrix = of_zh @ _inverse(of_h)
    offset = mean_z - matrix @ mean_h
    metric = up.double().cpu() @ up.double().cpu().T
    variance, mean_square = _trace(metric, of_z), _trace(metric, of_z + mean_z.outer(mean_z))

    def left(chosen: Tensor, added: Tensor) -> Tensor:
        apart = mean_z - chosen @ mean_h - added
        return of_z - chosen @ of_zh.T - of_zh @ chosen.T + chosen @ of_h @ chosen.T + apart.outer(apart)

    explained = 1 - _share(_trace(metric, left(matrix, offset)), variance)
    constant_share = _share(_trace(metric, offset.outer(offset)), mean_square) ** 0.5
    if constant == "absorb":
        matrix = (of_zh + mean_z.outer(mean_h)) @ _inverse(of_h + mean_h.outer(mean_h))
    kept = offset if constant == "keep" else torch.zeros_like(offset)
    missed = _share(_trace(metric, left(matrix, kept)), mean_square) ** 0.5
    return LinearFit(matrix, kept, explained, constant_share, missed, moments.tokens)


@torch.no_grad()
def linear_bottleneck(branch: FactoredBranch) -> LinearFit | None:
    """The bottleneck itself if it is linear, as without a circuit; else None.

    It is tried on zero, the unit vectors and random vectors, wherever the branch lets its circuits be evaluated.
    """
    down, _ = branch.effective_factors()
    rank = len(down)
    probes = torch.randn(PROBES, rank, generator=torch.Generator().manual_seed(0))
    h = torch.cat([torch.zeros(1, rank), torch.eye(rank), probes]).to(down)
    z = branch.bottleneck(h).double()
    matrix = z[1 : rank + 1].T
    rounding = max(LINEAR, 4 * torch.finfo(branch.dtype).eps)
    if (z - h.double() @ matrix.T).abs().max() > rounding * z.abs().max():
        return None
    return LinearFit(matrix.cpu(), torch.zeros(rank, dtype=torch.float64))


def _inverse(second_moments: Tensor) -> Tensor:
    inverse: Tensor = torch.linalg.pinv(second_moments, rtol=CUTOFF, hermitian=True)
    return inverse


def _trace(metric: Tensor, matrix: Tensor) -> float:
    """Trace of the product of two symmetric matrices."""
    return float((metric * matrix).sum())


def _share(part: float, whole: float) -> float:
    # Differences of large numbers: what is nothing may come out as a little less.
    return max(0.0, part) / whole if whole > 0 else 0.0

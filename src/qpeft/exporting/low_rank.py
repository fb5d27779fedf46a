"""Matrices as products of two thin ones: exactly, or as near as a rank allows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qpeft.adapters.base import FactoredBranch
from qpeft.adapters.load import evaluating
from qpeft.data import Encoded
from qpeft.errors import DataError
from qpeft.runs.bars import OnProgress, to_nobody

SUMMED, ROUNDED_ONCE = 4.0, 1.0
"""How far rounding reaches, in units of the rounding of entries (`cut_matrix`).

Every term of a sum is rounded in float32 and float64, only its result in half precision. Measured: at most 2.5 and 0.8,
over shapes of 9 to 2048 and sums of 4 to 256 terms.
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
    """Return up @ down in its best approximation of this rank at most; as it is for None.

    Args:
        down: right factor, (k, in_features).
        up: left factor, (out_features, k).
        rank: highest rank of the result; None for k.
    """
    if rank is None or rank >= len(down):
        return LowRank(down, up, error=0.0)
    # Through the two thin factors: the product itself may be a hundred times as large, and is never formed.
    left, up_core = torch.linalg.qr(up.double())
    right, down_core = torch.linalg.qr(down.double().T)
    inner_left, values, inner_right = torch.linalg.svd(up_core @ down_core.T)
    return LowRank(
        (inner_right[:rank] @ right.T).to(down.dtype),
        (left @ (inner_left[:, :rank] * values[:rank])).to(up.dtype),
        error=_lost(values, rank),
    )


def cut_matrix(matrix: Float[Tensor, "out_features in_features"], rank: int | None, *, at_most: int) -> LowRank:
    """Return a matrix in its best approximation of this rank at most; for None, of its own rank, if `at_most` allows.

    Args:
        matrix: in the type that it was computed in, since that says which of its directions are rounding.
        rank: most that is wanted.
        at_most: the same where `rank` is None.

    Returns:
        Factors in float64. What lies beyond the matrix's own rank is rounding, and no loss.
    """
    exact, digits, (rows, columns) = matrix.double(), torch.finfo(matrix.dtype), matrix.shape
    norm, wanted = float(exact.norm()), at_most if rank is None else rank
    # The largest singular value that rounding of the entries may make where the matrix itself has none: errors of
    # independent entries, each of size sigma, have singular values up to sigma (sqrt(rows) + sqrt(columns)).
    # Below the smallest normal number steps between numbers shrink no further, and float16 has weights there.
    typical = max(norm / (rows * columns) ** 0.5, digits.smallest_normal)
    reach = ROUNDED_ONCE if digits.bits < 32 else SUMMED
    of_entries = reach * digits.eps * typical * (rows**0.5 + columns**0.5)
    rounding = max(of_entries, DECOMPOSED * torch.finfo(torch.float64).eps * norm)

    # A matrix of small rank lies in the span of a few of its random combinations, which takes a hundredth of the time
    # of a whole decomposition. Whether it does is measured; where it does not, the whole is decomposed.
    width, basis, inside = wanted + SKETCHED_BEYOND, None, exact
    if 2 * width < min(rows, columns):
        mixing = torch.randn(columns, width, generator=torch.Generator().manual_seed(0), dtype=exact.dtype)
        sketch = torch.linalg.qr(exact @ mixing.to(exact.device)).Q
        # All that rounding leaves outside, over all directions, is about so large.
        if (exact - sketch @ (sketch.T @ exact)).norm() <= rounding * min(rows, columns) ** 0.5:
            basis, inside = sketch, sketch.T @ exact
    left, values, right = torch.linalg.svd(inside, full_matrices=False)
    left = left if basis is None else basis @ left
    own = max(1, int((values > rounding).sum()))
    kept = min(own, wanted)
    return LowRank(right[:kept], left[:, :kept] * values[:kept], error=_lost(values[:own], kept))


def _lost(values: Tensor, rank: int) -> float:
    whole = float(values.norm())
    return float(values[rank:].norm()) / whole if whole else 0.0


# First and second moments of what goes into a bottleneck and what comes out, gathered token by token.


class Moments:
    """Sums over tokens of h, z and all products of their entries, in float64; the tokens themselves are not kept.

    h (tokens, rank) goes into a bottleneck, z (tokens, rank) comes out of it.
    """

    def __init__(self, rank: int) -> None:
        self.rank, self.tokens = rank, 0
        self._sum = torch.zeros(2 * rank, dtype=torch.float64)
        self._products = torch.zeros(2 * rank, 2 * rank, dtype=torch.float64)

    def add(self, h: Float[Tensor, "*batch rank"], z: Float[Tensor, "*batch rank"]) -> None:
        """Count further tokens, in one matrix product on the device they are on."""
        both = torch.cat([h.double(), z.double()], dim=-1).flatten(0, -2)
        self.tokens += len(both)
        self._sum += both.sum(0).cpu()
        self._products += (both.T @ both).cpu()

    def means(self) -> tuple[Float[Tensor, " rank"], Float[Tensor, " rank"]]:
        """Return the means of h and of z."""
        mean_h, mean_z = (self._sum / self.tokens).split(self.rank)
        return mean_h, mean_z

    def covariances(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the covariances of h with h, of z with h and of z with z, each (rank, rank)."""
        mean = self._sum / self.tokens
        covariance = self._products / self.tokens - torch.outer(mean, mean)
        h, z = slice(0, self.rank), slice(self.rank, None)
        return covariance[h, h], covariance[z, h], covariance[z, z]


def collect_moments(
    model: nn.Module,
    branches: Mapping[str, FactoredBranch],
    encoded: Sequence[Encoded],
    *,
    on_progress: OnProgress = to_nobody,
) -> dict[str, Moments]:
    """Return the moments of every branch while the model reads the examples, adapters and all, in evaluation mode.

    Examples are read one at a time: so no token is padding, whatever shape a layer gives its inputs.

    Args:
        model: whose layers are watched.
        branches: by the names under which their moments are returned.
        encoded: examples that the model reads.
        on_progress: told how many examples are done.
    """

    def count(bottleneck: Callable[[Tensor], Tensor], seen: Moments, h: Tensor) -> Tensor:
        """Compute the bottleneck as before, and add its inputs and outputs to `seen`."""
        z = bottleneck(h)
        seen.add(h, z)
        return z

    moments = {name: Moments(branch.effective_factors()[0].shape[0]) for name, branch in branches.items()}
    device = next(model.parameters()).device
    with ExitStack() as counted, evaluating(model):
        for name, branch in branches.items():
            # What passes the bottleneck is counted; nothing is evaluated for that: a device is paid for each time.
            branch.bottleneck = partial(count, branch.bottleneck, moments[name])  # type: ignore[method-assign]
            counted.callback(delattr, branch, "bottleneck")
        for done, one in enumerate(encoded):
            on_progress("calibration text", done, len(encoded))
            model(input_ids=torch.tensor([one.input_ids], device=device), use_cache=False)
    on_progress("calibration text", len(encoded), len(encoded))
    return moments


# The linear map that stands in best for a bottleneck.


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
    """Return the least-squares fit of z to h over all tokens that `moments` has seen.

    Centred, z = M h + c, which is the best with a constant; `absorb` fits z = M h, the best without one.

    The matrix that comes nearest to z comes nearest to the update as well, since each row of a least-squares fit is
    found by itself and `up` only mixes rows. So `up` is needed for the shares alone, which are those of the update.

    Args:
        moments: of h and z, as `collect_moments` made them.
        up: the factor behind the bottleneck, by which errors of z are weighed.
        constant: 'keep' a constant, 'absorb' it into the map, or 'drop' it after a fit with one.

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

    # Second moments of z - chosen h - added, multiplied out, so that no token has to be seen a second time.
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
    """Return the bottleneck itself as a map if it is linear, as without a circuit; else None.

    It is tried on zero, the unit vectors and random vectors, wherever the branch lets its circuits be evaluated.
    """
    down, _ = branch.effective_factors()
    rank = len(down)
    probes = torch.randn(PROBES, rank, generator=torch.Generator().manual_seed(0))
    h = torch.cat([torch.zeros(1, rank), torch.eye(rank), probes]).to(down)
    # Row 0 is that of zero: a bottleneck with a constant differs there, and is not taken for linear.
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

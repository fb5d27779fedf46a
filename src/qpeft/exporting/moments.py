"""First and second moments of what goes into a bottleneck and what comes out, gathered token by token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qpeft.adapters.base import FactoredBranch
from qpeft.adapters.modes import evaluating
from qpeft.data import Encoded
from qpeft.runs.bars import OnProgress, to_nobody


class Moments:
    """Sums over tokens of h, z and all products of their entries, in float64; the tokens themselves are not kept.

    h (tokens, rank) goes into a bottleneck, z (tokens, rank) comes out of it.
    """

    def __init__(self, rank: int) -> None:
        self.rank, self.tokens = rank, 0
        self._sum = torch.zeros(2 * rank, dtype=torch.float64)
        self._products = torch.zeros(2 * rank, 2 * rank, dtype=torch.float64)

    def add(self, h: Float[Tensor, "*batch rank"], z: Float[Tensor, "*batch rank"]) -> None:
        """Count further tokens."""
        both = torch.cat([h.double(), z.double()], dim=-1).flatten(0, -2)
        self.tokens += len(both)
        self._sum += both.sum(0).cpu()
        self._products += (both.T @ both).cpu()

    def means(self) -> tuple[Float[Tensor, " rank"], Float[Tensor, " rank"]]:
        """Of h and of z."""
        mean_h, mean_z = (self._sum / self.tokens).split(self.rank)
        return mean_h, mean_z

    def covariances(self) -> tuple[Tensor, Tensor, Tensor]:
        """Of h with h, of z with h and of z with z, each (rank, rank)."""
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
    """Moments of every branch while the model reads the examples, adapters and all, in evaluation mode.

    Examples are read one at a time: so no token is padding, whatever shape a layer gives its inputs.
    """
    moments = {name: Moments(branch.effective_factors()[0].shape[0]) for name, branch in branches.items()}
    device = next(model.parameters()).device
    with ExitStack() as counted, evaluating(model):
        for name, branch in branches.items():
            counted.enter_context(_gathering(branch, moments[name]))
        for done, one in enumerate(encoded):
            on_progress("calibration text", done, len(encoded))
            model(input_ids=torch.tensor([one.input_ids], device=device), use_cache=False)
    on_progress("calibration text", len(encoded), len(encoded))
    return moments


@contextmanager
def _gathering(branch: FactoredBranch, moments: Moments) -> Iterator[None]:
    """Inside, what passes the bottleneck is counted. Nothing is evaluated for that: a device is paid for each time."""
    bottleneck = branch.bottleneck

    def gather(h: Tensor) -> Tensor:
        z = bottleneck(h)
        moments.add(h, z)
        return z

    branch.bottleneck = gather  # type: ignore[method-assign]
    try:
        yield
    finally:
        del branch.bottleneck

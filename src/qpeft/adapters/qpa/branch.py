"""One QPA adapter beside one linear layer: two generated matrices."""

from __future__ import annotations

import torch

from qpeft.adapters.base import FactoredMatrixBranch
from qpeft.adapters.qpa.config import QpaConfig
from qpeft.adapters.qpa.generator import GeneratedFactor


class QpaBranch(FactoredMatrixBranch):
    """The update that one QPA adapter adds to one linear layer.

        update = scaling * x down^T up

    Shapes: x (..., in_features); down (rank, in_features); up (rank, out_features), each a `GeneratedFactor`.
    Source: arXiv:2410.09846.
    """

    down: GeneratedFactor
    up: GeneratedFactor

    def __init__(self, config: QpaConfig, in_features: int, out_features: int, *, rank: int, scaling: float) -> None:
        down, up = (
            GeneratedFactor(
                rank,
                width,
                chunk_size=config.chunk_size,
                hidden_size=config.hidden_size,
                depth=config.depth,
            )
            for width in (in_features, out_features)
        )
        super().__init__(down, up, scaling=scaling, dropout=config.dropout)
        self.rank, self.in_features = rank, in_features

    @torch.no_grad()
    def initialize(self, generator: torch.Generator | None) -> None:
        """Random generators, `up` zero through its last layer: the update starts at zero. Nothing on the meta device.

        Inputs of unit variance give h of variance 1/3 on average, as in LoRA.
        """
        if next(self.parameters()).is_meta:
            return
        self.down.initialize(variance=1 / (3 * self.in_features), generator=generator)
        self.up.initialize(variance=1 / self.rank, generator=generator)
        self.up.zero()

"""Methods whose update is two factors of a rank, as LoRA's A and B are: made and started in the same way."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch

from qpeft.adapters.base.branch import FactoredMatrixBranch
from qpeft.adapters.base.config import RankedConfig
from qpeft.adapters.base.factors import AbstractFactor, AbstractRandomFactor
from qpeft.adapters.base.layer import generator
from qpeft.adapters.base.matrix import AbstractMatrixLayer


class AbstractRankedBranch(FactoredMatrixBranch):
    """Two factors that a method makes for a rank and a width each.

    update = scaling * x down^T up

    Shapes: x (..., in_features); down (rank, in_features); up (rank, out_features).
    """

    def __init__(self, config: Any, in_features: int, out_features: int, *, rank: int, scaling: float) -> None:
        down, up = (self.make_factor(config, rank, width) for width in (in_features, out_features))
        super().__init__(down, up, scaling=scaling, dropout=config.dropout)
        self.rank, self.in_features = rank, in_features

    @staticmethod
    @abstractmethod
    def make_factor(config: Any, rank: int, width: int) -> AbstractFactor:
        """A factor (rank, width) of this config, not yet initialised."""

    @abstractmethod
    def initialize(self, generator: torch.Generator | None) -> None:
        """First values, with which the update is zero. Does nothing on the meta device."""


class AbstractLoraLikeBranch(AbstractRankedBranch):
    """Such factors that start as LoRA's do: `down` at random, `up` at zero."""

    down: AbstractRandomFactor
    up: AbstractRandomFactor

    @torch.no_grad()
    def initialize(self, generator: torch.Generator | None) -> None:
        """Random factors, then `up` zero: the update starts at zero. Does nothing on the meta device.

        Inputs of unit variance give down x the variance 1/3, as in LoRA.
        """
        if next(self.parameters()).is_meta:
            return
        self.down.initialize(variance=1 / (3 * self.in_features), generator=generator)
        self.up.initialize(variance=1 / self.rank, generator=generator)
        self.up.zero()


class AbstractRankedLayer(AbstractMatrixLayer):
    """A linear layer with such branches beside it, of the class that a method names."""

    branch_class: ClassVar[type[AbstractRankedBranch]]

    def make_branch(self, config: RankedConfig) -> AbstractRankedBranch:
        """A branch of the rank and alpha that the config's patterns give this layer; its update is zero."""
        rank, scaling = config.rank_of(self.name), config.scaling_of(self.name)
        branch = self.branch_class(config, self.in_features, self.out_features, rank=rank, scaling=scaling)
        branch.initialize(generator(config.init_seed, self.name))
        return branch

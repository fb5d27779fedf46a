"""One TT-LoRA adapter beside one linear layer: one tensor train."""

from __future__ import annotations

import torch

from qpeft.adapters.base import BareMpoFactor, FactoredMatrixBranch
from qpeft.adapters.tt_lora.config import TtLoraConfig
from qpeft.tensor_networks import Modes, open_bond


class TtLoraBranch(FactoredMatrixBranch):
    """The update that one TT-LoRA adapter adds to one linear layer.

        update[(j_1..j_K)] = scaling * sum over i of F_K[i_K] ... F_1[i_1] G_1[j_1] ... G_K[j_K] x[(i_1..i_K)]

    The train runs from the last input mode to the first, then from the first output mode to the last; the largest modes
    stand at its ends, where a core has one bond only. Cut in its middle, it is two factors: `down` (rank, in_features),
    made of the F, and `up` (rank, out_features), made of the G.
    Shapes: x (..., in_features); F_k[i] and G_k[j] (rank, rank), the outermost (1, rank) and (rank, 1).
    Source: arXiv:2408.01008.
    """

    down: BareMpoFactor
    up: BareMpoFactor

    def __init__(self, config: TtLoraConfig, in_features: int, out_features: int, *, rank: int, scaling: float) -> None:
        down, up = (_train(rank, config.modes_of(width)) for width in (in_features, out_features))
        super().__init__(down, up, scaling=scaling, dropout=config.dropout)
        self.rank, self.in_features = rank, in_features

    @torch.no_grad()
    def initialize(self, generator: torch.Generator | None) -> None:
        """Orthogonal cores, the last output core zero: the update starts at zero. Does nothing on the meta device.

        Inputs of unit variance give down x the variance 1/3, as in LoRA.
        """
        if next(self.parameters()).is_meta:
            return
        variance = 1 / (3 * self.in_features)
        self.down.initialize("orthogonal", reads="wide", variance=variance, generator=generator)
        self.up.initialize("orthogonal", reads="narrow", variance=1 / self.rank, generator=generator)
        self.up.zero()


def _train(rank: int, modes: Modes) -> BareMpoFactor:
    return BareMpoFactor(open_bond(rank, len(modes.factors)), modes, bond_dimension=rank)

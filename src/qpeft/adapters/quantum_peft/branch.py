"""One Quantum-PEFT adapter beside one linear layer: columns of two circuits, and what stands between them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qpeft.adapters.base import FactoredMatrixBranch
from qpeft.adapters.quantum_peft.columns import CircuitColumns
from qpeft.adapters.quantum_peft.config import QuantumPeftConfig


class QuantumPeftBranch(FactoredMatrixBranch):
    """The update that one Quantum-PEFT adapter adds to one linear layer.

        update = scaling * x down^T diag(strengths) up

    Shapes: x (..., in_features); down (rank, in_features) is V^T, up (rank, out_features) is U^T, each a
    `CircuitColumns`; strengths (rank,) is the paper's Lambda.
    Source: arXiv:2503.05431, our reconstruction; see docs/quantum_peft.md.
    """

    down: CircuitColumns
    up: CircuitColumns

    def __init__(
        self, config: QuantumPeftConfig, in_features: int, out_features: int, *, rank: int, scaling: float
    ) -> None:
        down, up = (CircuitColumns(rank, width, depth=config.depth) for width in (in_features, out_features))
        super().__init__(down, up, scaling=scaling, dropout=config.dropout)
        self.strengths = nn.Parameter(torch.empty(rank))

    def bottleneck(self, h: Float[Tensor, "*batch rank"]) -> Float[Tensor, "*batch rank"]:
        """h, each entry times its strength."""
        return h * self.strengths

    @torch.no_grad()
    def initialize(self, generator: torch.Generator | None) -> None:
        """Random columns, strengths zero: the update starts at zero. Does nothing on the meta device."""
        if next(self.parameters()).is_meta:
            return
        self.down.initialize(generator)
        self.up.initialize(generator)
        nn.init.zeros_(self.strengths)

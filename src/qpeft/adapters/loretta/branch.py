"""One LoRETTA adapter beside one linear layer: two tensor trains."""

from __future__ import annotations

import torch

from qpeft.adapters.base import FactoredMatrixBranch, MpoFactor
from qpeft.adapters.loretta.config import LorettaConfig
from qpeft.tensor_networks import factorize, open_bond


class LorettaBranch(FactoredMatrixBranch):
    """The update that one LoRETTA adapter adds to one linear layer.

        update = scaling * x down^T up;   down, up: T[i, (j_1..j_K)] = R[i] G_1[j_1] ... G_K[j_K]

    Shapes: x (..., in_features); down (rank, in_features); up (rank, out_features); R (rank, b); G_k[j] (b, b), the
    last (b, 1); b is the bond dimension. A width w_1 ... w_K takes b (rank + b (w_1 + ... + w_(K-1)) + w_K) parameters.
    Source: LoRETTA's reparametrised form, arXiv:2402.11417.
    """

    down: MpoFactor
    up: MpoFactor

    def __init__(
        self, config: LorettaConfig, in_features: int, out_features: int, *, rank: int, scaling: float
    ) -> None:
        down, up = _train(config, rank, in_features), _train(config, rank, out_features)
        super().__init__(down, up, scaling=scaling, dropout=config.dropout)
        self.rank, self.in_features = rank, in_features

    @torch.no_grad()
    def initialize(self, generator: torch.Generator | None) -> None:
        """Orthogonal cores, `up` zero through its last: the update starts at zero. Does nothing on the meta device.

        Inputs of unit variance give h of variance 1/3, as in LoRA.
        """
        if next(self.parameters()).is_meta:
            return
        variance = 1 / (3 * self.in_features)
        self.down.initialize("orthogonal", reads="wide", variance=variance, generator=generator)
        self.up.initialize("orthogonal", reads="narrow", variance=1 / self.rank, generator=generator)
        self.up.zero()


def _train(config: LorettaConfig, rank: int, width: int) -> MpoFactor:
    # R is the factor's bottleneck, the open bond of the train what lies between them.
    bond = config.bond_dimension
    link = open_bond(bond, config.num_modes)
    return MpoFactor(rank, link, factorize(width, config.num_modes), bond_dimension=bond)

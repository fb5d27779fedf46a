"""One LoRETTA adapter beside one linear layer: two tensor trains."""

from __future__ import annotations

from qpeft.adapters.base import AbstractLoraLikeBranch, MpoFactor
from qpeft.adapters.loretta.config import LorettaConfig
from qpeft.tensor_networks import factorize, open_bond


class LorettaBranch(AbstractLoraLikeBranch):
    """The update that one LoRETTA adapter adds to one linear layer.

        update = scaling * x down^T up;   down, up: T[i, (j_1..j_K)] = R[i] G_1[j_1] ... G_K[j_K]

    Shapes: x (..., in_features); down (rank, in_features); up (rank, out_features); R (rank, b); G_k[j] (b, b), the
    last (b, 1); b is the bond dimension. A width w_1 ... w_K takes b (rank + b (w_1 + ... + w_(K-1)) + w_K) parameters.
    Source: LoRETTA's reparametrised form, arXiv:2402.11417.
    """

    @staticmethod
    def make_factor(config: LorettaConfig, rank: int, width: int) -> MpoFactor:
        """A train: R is the factor's bottleneck, and the train's open bond lies between that and its cores."""
        bond = config.bond_dimension
        link = open_bond(bond, config.num_modes)
        return MpoFactor(rank, link, factorize(width, config.num_modes), bond_dimension=bond)

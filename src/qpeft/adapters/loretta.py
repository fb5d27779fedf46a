"""LoRETTA (arXiv:2402.11417): LoRA whose two matrices are tensor trains, the reparametrised form."""

from __future__ import annotations

from dataclasses import dataclass

from qpeft.adapters.base import (
    AbstractLoraLikeBranch,
    AbstractMatrixModel,
    AbstractRankedLayer,
    GradientStartConfig,
    MpoFactor,
    check_counts,
    option,
)
from qpeft.errors import AdapterError
from qpeft.tensor_networks import factorize, open_bond


@dataclass
class LorettaConfig(GradientStartConfig, method="loretta"):
    """Configuration of a LoRETTA adapter.

        y = base(x) + alpha / rank * up(down(dropout(x)))

    `down` (rank x in_features) and `up` (out_features x rank) are LoRA's A and B, each a tensor train with a core for
    the rank and one for each mode of the width. A fresh adapter leaves the model as it is.

    Raises: AdapterError for a value out of range, and for a rank above the bond dimension, which bounds it.
    Source: LoRETTA's reparametrised form, arXiv:2402.11417; docs/loretta.md lists the departures.
    """

    bond_dimension: int = option(8, "Width of the links between the cores of a train; the size grows with its square.")
    num_modes: int = option(3, "Factors that each width is split into, one core each.")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts({name: getattr(self, name) for name in ("bond_dimension", "num_modes")})
        if (rank := max(self.ranks)) > self.bond_dimension:
            raise AdapterError(
                f"rank {rank} is more than a train of bond_dimension {self.bond_dimension} can have: set rank to "
                f"{self.bond_dimension} or bond_dimension to {rank}."
            )


class LorettaBranch(AbstractLoraLikeBranch):
    """The update that one LoRETTA adapter adds to one linear layer.

        update = scaling * x down^T up;   down, up: T[i, (j_1..j_K)] = R[i] G_1[j_1] ... G_K[j_K]

    Shapes: x (..., in_features); down (rank, in_features); up (rank, out_features); R (rank, b); G_k[j] (b, b), the
    last (b, 1); b is the bond dimension. A width w_1 ... w_K takes b (rank + b (w_1 + ... + w_(K-1)) + w_K) parameters.
    Source: LoRETTA's reparametrised form, arXiv:2402.11417.
    """

    @staticmethod
    def make_factor(config: LorettaConfig, rank: int, width: int) -> MpoFactor:
        """A train: R is the factor's bottleneck, and the train's open bond lies between that and its cores.

        Args:
            config: with modes and bond dimension.
            rank: open bond of the train, narrow side.
            width: wide side.
        """
        bond = config.bond_dimension
        link = open_bond(bond, config.num_modes)
        return MpoFactor(rank, link, factorize(width, config.num_modes), bond_dimension=bond)


class LorettaLayer(AbstractRankedLayer, method="loretta"):
    """A linear layer plus the updates of its active LoRETTA adapters; see `LorettaBranch`.

    Shapes: x (..., in_features), y (..., out_features) in the type that the base layer returns.
    """

    branch_class = LorettaBranch


class LorettaModel(AbstractMatrixModel, layer=LorettaLayer):
    """Made by `get_peft_model(model, LorettaConfig(...))`; without target_modules, PEFT's usual
    ones for LoRA are taken.

    Raises: AdapterError for a target that is not linear, and for mixed batches that cannot be.
    """

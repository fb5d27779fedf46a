"""One TT-LoRA adapter beside one linear layer: one tensor train."""

from __future__ import annotations

from qpeft.adapters.base import AbstractLoraLikeBranch, BareMpoFactor
from qpeft.adapters.tt_lora.config import TtLoraConfig
from qpeft.tensor_networks import open_bond


class TtLoraBranch(AbstractLoraLikeBranch):
    """The update that one TT-LoRA adapter adds to one linear layer.

        update[(j_1..j_K)] = scaling * sum over i of F_K[i_K] ... F_1[i_1] G_1[j_1] ... G_K[j_K] x[(i_1..i_K)]

    The train runs from the last input mode to the first, then from the first output mode to the last; the largest modes
    stand at its ends, where a core has one bond only. Cut in its middle, it is two factors: `down` (rank, in_features),
    made of the F, and `up` (rank, out_features), made of the G.
    Shapes: x (..., in_features); F_k[i] and G_k[j] (rank, rank), the outermost (1, rank) and (rank, 1).
    Source: arXiv:2408.01008.
    """

    @staticmethod
    def make_factor(config: TtLoraConfig, rank: int, width: int) -> BareMpoFactor:
        """One half of the train, from its middle outwards."""
        modes = config.modes_of(width)
        return BareMpoFactor(open_bond(rank, len(modes.factors)), modes, bond_dimension=rank)

"""TT-LoRA (arXiv:2408.01008): the whole update as one tensor train."""

from __future__ import annotations

from dataclasses import dataclass

from qpeft.adapters.base import (
    AbstractLoraLikeBranch,
    AbstractMatrixModel,
    AbstractRankedLayer,
    BareMpoFactor,
    RankedConfig,
    check_counts,
    check_factors,
    given_factors,
    option,
)
from qpeft.tensor_networks import Modes, factorize, open_bond


@dataclass
class TtLoraConfig(RankedConfig, method="tt_lora"):
    """Configuration of a TT-LoRA adapter.

        y = base(x) + alpha / rank * train(dropout(x))

    The whole update is one tensor train, with a core for every mode of the input width and of the output width; `rank`
    is its bond dimension. A fresh adapter leaves the model as it is.
    Trained parameters, for widths n_1 ... n_K and m_1 ... m_K, largest last:
    rank^2 (n_1 + ... + n_(K-1) + m_1 + ... + m_(K-1)) + rank (n_K + m_K).

    Raises: AdapterError for a value out of range, and for modes that do not fit each other or the model.
    Source: TT-LoRA, arXiv:2408.01008; docs/tt_lora.md lists the departures.
    """

    num_modes: int = option(3, "Factors that each width is split into, one core each.")
    modes: list[list[int]] | None = option(
        None, "Factors of every width instead, from an end of the train inwards: [[16, 8, 4, 4], [16, 16, 2]]."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts({"num_modes": self.num_modes})
        if self.modes is not None:
            check_factors("modes", self.modes)

    def modes_of(self, width: int) -> Modes:
        """The modes of a width, from the middle of the train to its end: balanced, unless modes are given.

        Raises: AdapterError if they are, but none for this width.
        """
        balanced = factorize(width, self.num_modes)
        modes = balanced if self.modes is None else given_factors("modes", self.modes, width, balanced)
        return Modes(width, modes.factors[::-1])


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
        """One half of the train, from its middle outwards.

        Args:
            config: with modes.
            rank: bond in the middle of the train.
            width: of this half's side.
        """
        modes = config.modes_of(width)
        return BareMpoFactor(open_bond(rank, len(modes.factors)), modes, bond_dimension=rank)


class TtLoraLayer(AbstractRankedLayer, method="tt_lora"):
    """A linear layer plus the updates of its active TT-LoRA adapters; see `TtLoraBranch`.

    Shapes: x (..., in_features), y (..., out_features) in the type that the base layer returns.
    """

    branch_class = TtLoraBranch


class TtLoraModel(AbstractMatrixModel, layer=TtLoraLayer):
    """Made by `get_peft_model(model, TtLoraConfig(...))`; without target_modules, PEFT's usual
    ones for LoRA are taken.

    Raises: AdapterError for a target that is not linear, and for mixed batches that cannot be.
    """

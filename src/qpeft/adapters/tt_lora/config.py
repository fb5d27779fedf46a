"""Options of a TT-LoRA adapter, as PEFT stores them in adapter_config.json."""

from __future__ import annotations

from dataclasses import dataclass

from qpeft.adapters.base import RankedConfig, check_counts, check_factors, given_factors, option
from qpeft.adapters.bridge import peft_type
from qpeft.tensor_networks import Modes, factorize


@dataclass
class TtLoraConfig(RankedConfig):
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
        self.peft_type = peft_type("TT_LORA")
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

"""Options of a LoRETTA adapter, as PEFT stores them in adapter_config.json."""

from __future__ import annotations

from dataclasses import dataclass

from qpeft.adapters.base import RankedConfig, check_counts, option
from qpeft.adapters.bridge import peft_type
from qpeft.errors import AdapterError


@dataclass
class LorettaConfig(RankedConfig):
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
        self.peft_type = peft_type("LORETTA")
        check_counts({name: getattr(self, name) for name in ("bond_dimension", "num_modes")})
        if (rank := max(self.ranks)) > self.bond_dimension:
            raise AdapterError(
                f"rank {rank} is more than a train of bond_dimension {self.bond_dimension} can have: set rank to "
                f"{self.bond_dimension} or bond_dimension to {rank}."
            )

"""A linear layer with Quantum-PEFT adapters beside it."""

from __future__ import annotations

from qpeft.adapters.base import AbstractRankedBranch, AbstractRankedLayer, RankedConfig
from qpeft.adapters.quantum_peft.branch import QuantumPeftBranch
from qpeft.errors import AdapterError


class QuantumPeftLayer(AbstractRankedLayer):
    """A linear layer plus the updates of its active Quantum-PEFT adapters; see `QuantumPeftBranch`.

    Shapes: x (..., in_features), y (..., out_features) in the type that the base layer returns.
    """

    adapter_layer_names = ("quantum_peft_branch",)
    branch_class = QuantumPeftBranch

    def make_branch(self, config: RankedConfig) -> AbstractRankedBranch:
        """As of any ranked layer. Raises: AdapterError for a rank above the layer's smaller width."""
        rank = config.rank_of(self.name)
        if rank > (largest := min(self.in_features, self.out_features)):
            raise AdapterError(
                f"rank {rank} is more than a matrix of {self.out_features} x {self.in_features} can have, as that of "
                f"{self.name!r}: set rank, or rank_pattern for this layer, to {largest} at most."
            )
        return super().make_branch(config)

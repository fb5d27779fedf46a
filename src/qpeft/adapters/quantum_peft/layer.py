"""A linear layer with Quantum-PEFT adapters beside it."""

from __future__ import annotations

from qpeft.adapters.base import AbstractMatrixLayer, generator
from qpeft.adapters.quantum_peft.branch import QuantumPeftBranch
from qpeft.adapters.quantum_peft.config import QuantumPeftConfig
from qpeft.errors import AdapterError


class QuantumPeftLayer(AbstractMatrixLayer):
    """A linear layer plus the updates of its active Quantum-PEFT adapters; see `QuantumPeftBranch`.

    Shapes: x (..., in_features), y (..., out_features) in the type that the base layer returns.
    """

    adapter_layer_names = ("quantum_peft_branch",)

    def make_branch(self, config: QuantumPeftConfig) -> QuantumPeftBranch:
        """A branch of the rank and alpha that the config's patterns give this layer; its strengths are zero.

        Raises: AdapterError for a rank above the layer's smaller width.
        """
        rank, scaling = config.rank_of(self.name), config.scaling_of(self.name)
        if rank > (largest := min(self.in_features, self.out_features)):
            raise AdapterError(
                f"rank {rank} is more than a matrix of {self.out_features} x {self.in_features} can have, as that of "
                f"{self.name!r}: set rank, or rank_pattern for this layer, to {largest} at most."
            )
        branch = QuantumPeftBranch(config, self.in_features, self.out_features, rank=rank, scaling=scaling)
        branch.initialize(generator(config.init_seed, self.name))
        return branch

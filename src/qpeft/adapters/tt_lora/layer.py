"""A linear layer with TT-LoRA adapters beside it."""

from __future__ import annotations

from qpeft.adapters.base import AbstractMatrixLayer, generator
from qpeft.adapters.tt_lora.branch import TtLoraBranch
from qpeft.adapters.tt_lora.config import TtLoraConfig


class TtLoraLayer(AbstractMatrixLayer):
    """A linear layer plus the updates of its active TT-LoRA adapters; see `TtLoraBranch`.

    Shapes: x (..., in_features), y (..., out_features) in the type that the base layer returns.
    """

    adapter_layer_names = ("tt_lora_branch",)

    def make_branch(self, config: TtLoraConfig) -> TtLoraBranch:
        """A branch of the rank and alpha that the config's patterns give this layer; its last core is zero."""
        rank, scaling = config.rank_of(self.name), config.scaling_of(self.name)
        branch = TtLoraBranch(config, self.in_features, self.out_features, rank=rank, scaling=scaling)
        branch.initialize(generator(config.init_seed, self.name))
        return branch

"""A linear layer with QuanTA adapters beside it."""

from __future__ import annotations

from qpeft.adapters.base import AbstractMatrixLayer, generator
from qpeft.adapters.quanta.branch import QuantaBranch
from qpeft.adapters.quanta.config import QuantaConfig


class QuantaLayer(AbstractMatrixLayer):
    """A linear layer plus the updates of its active QuanTA adapters; see `QuantaBranch`.

    Shapes: x (..., in_features), y (..., out_features) in the type that the base layer returns.
    """

    adapter_layer_names = ("quanta_branch",)

    def make_branch(self, config: QuantaConfig) -> QuantaBranch:
        """A branch on the axes that the config gives this layer's widths; its differences are zero."""
        branch = QuantaBranch(config, self.in_features, self.out_features)
        branch.initialize(config.init, generator(config.init_seed, self.name))
        return branch

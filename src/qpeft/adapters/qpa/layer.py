"""A linear layer with QPA adapters beside it."""

from __future__ import annotations

from qpeft.adapters.base import AbstractMatrixLayer, generator
from qpeft.adapters.qpa.branch import QpaBranch
from qpeft.adapters.qpa.config import QpaConfig


class QpaLayer(AbstractMatrixLayer):
    """A linear layer plus the updates of its active QPA adapters; see `QpaBranch`.

    Shapes: x (..., in_features), y (..., out_features) in the type that the base layer returns.
    """

    adapter_layer_names = ("qpa_branch",)

    def make_branch(self, config: QpaConfig) -> QpaBranch:
        """A branch of the rank and alpha that the config's patterns give this layer; its `up` is zero."""
        rank, scaling = config.rank_of(self.name), config.scaling_of(self.name)
        branch = QpaBranch(config, self.in_features, self.out_features, rank=rank, scaling=scaling)
        branch.initialize(generator(config.init_seed, self.name))
        return branch

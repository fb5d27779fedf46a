"""A linear layer with LoRETTA adapters beside it."""

from __future__ import annotations

from qpeft.adapters.base import AbstractRankedLayer
from qpeft.adapters.loretta.branch import LorettaBranch


class LorettaLayer(AbstractRankedLayer):
    """A linear layer plus the updates of its active LoRETTA adapters; see `LorettaBranch`.

    Shapes: x (..., in_features), y (..., out_features) in the type that the base layer returns.
    """

    adapter_layer_names = ("loretta_branch",)
    branch_class = LorettaBranch

"""A linear layer with TT-LoRA adapters beside it."""

from __future__ import annotations

from qpeft.adapters.base import AbstractRankedLayer
from qpeft.adapters.tt_lora.branch import TtLoraBranch


class TtLoraLayer(AbstractRankedLayer):
    """A linear layer plus the updates of its active TT-LoRA adapters; see `TtLoraBranch`.

    Shapes: x (..., in_features), y (..., out_features) in the type that the base layer returns.
    """

    adapter_layer_names = ("tt_lora_branch",)
    branch_class = TtLoraBranch

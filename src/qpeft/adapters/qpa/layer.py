"""A linear layer with QPA adapters beside it."""

from __future__ import annotations

from qpeft.adapters.base import AbstractRankedLayer
from qpeft.adapters.qpa.branch import QpaBranch


class QpaLayer(AbstractRankedLayer):
    """A linear layer plus the updates of its active QPA adapters; see `QpaBranch`.

    Shapes: x (..., in_features), y (..., out_features) in the type that the base layer returns.
    """

    adapter_layer_names = ("qpa_branch",)
    branch_class = QpaBranch

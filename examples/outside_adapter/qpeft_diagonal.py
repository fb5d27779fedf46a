"""An adapter for qpeft from another package: one trained factor for each feature.

    y = base(x) + d * dropout(x)

on the features that input and output have in common. `import qpeft` finds it where this package is installed.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from qpeft.adapters import register_adapter
from qpeft.adapters.base import AbstractMatrixBranch, AbstractMatrixLayer, AbstractMatrixModel, AdapterConfig


@dataclass
class DiagonalConfig(AdapterConfig, method="diagonal"):
    """Has no options of its own."""


class DiagonalBranch(AbstractMatrixBranch):
    """The update of one adapter beside one linear layer. Starts at zero, so that a fresh adapter changes nothing."""

    def __init__(self, config: DiagonalConfig, in_features: int, out_features: int) -> None:
        super().__init__()
        self.shape = (out_features, in_features)
        self.dropout = nn.Dropout(config.dropout)
        self.diagonal = nn.Parameter(torch.zeros(min(self.shape)))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(self.dropout(x), self.matrix())

    def matrix(self) -> Tensor:
        rows = torch.diag(self.diagonal)
        return nn.functional.pad(rows, (0, self.shape[1] - len(rows), 0, self.shape[0] - len(rows)))


class DiagonalLayer(AbstractMatrixLayer, method="diagonal"):
    """A linear layer with such adapters beside it: merging, mixing and the rest are inherited."""

    def make_branch(self, config: DiagonalConfig) -> DiagonalBranch:
        return DiagonalBranch(config, self.in_features, self.out_features)


class DiagonalModel(AbstractMatrixModel, layer=DiagonalLayer):
    """Puts such layers into a model."""


register_adapter("diagonal", DiagonalConfig, DiagonalModel)

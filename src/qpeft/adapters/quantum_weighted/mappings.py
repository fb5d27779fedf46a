"""From the numbers of a layer's circuit to its matrix R: by random matrices, a trained tensor train or a network.

A mapping is a list of its trained weights. Every R is zero where all numbers are zero, so that a fresh adapter changes
nothing. Sources: TinyLoRA, arXiv:2602.04118 (random); QPA, arXiv:2410.09846 (network).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qpeft.adapters.quantum_weighted.config import QuantumWeightedConfig
from qpeft.simulation.noise.counter import SampleKey, Stream


class AbstractMapping(nn.ParameterList):
    """Makes the matrices R of all layers, and holds what is trained for that.

    Args:
        config: with the rank and the sizes that the mapping needs.
        num_numbers: per layer, from its circuit.
        seed: of everything random, with the name of the layer.
    """

    def __init__(self, config: QuantumWeightedConfig, num_numbers: int, seed: int) -> None:
        super().__init__()
        self.rank, self.num_numbers, self.seed = config.rank, num_numbers, seed
        # An entry of P has variance 1 / (numbers * rank): numbers of size 1 then give R entries of variance 1 / rank.
        self.scale = 1 / math.sqrt(num_numbers * config.rank)
        self.layers: list[str] = []

    def add_layer(self, name: str) -> None:
        """Make room for one more layer, which gets the next place."""
        self.layers.append(name)

    @abstractmethod
    def matrices(
        self, numbers: Float[Tensor, "layers numbers"], weights: Sequence[Tensor]
    ) -> Float[Tensor, "layers entries"]:
        """Return R of every layer, row by row.

        Args:
            numbers: of each layer; layers of one circuit have the same.
            weights: those of this mapping, perhaps in another type, so that gradients can be taken by them.
        """

    def normals(self, name: str, *shape: int) -> Tensor:
        """Standard normal numbers that depend on the seed and `name` alone, float64."""
        return Stream(SampleKey(seed=self.seed, module=name)).normals(*shape)


class RandomMapping(AbstractMapping):
    """R_m = sum_k y_k P_mk with fixed random matrices P, as in TinyLoRA. Nothing is trained."""

    _stacked: Tensor | None = None

    def add_layer(self, name: str) -> None:
        """Make room for one more layer."""
        super().add_layer(name)
        self._stacked = None

    def matrices(
        self, numbers: Float[Tensor, "layers numbers"], weights: Sequence[Tensor]
    ) -> Float[Tensor, "layers entries"]:
        """Return sum_k y_k P_mk; see `AbstractMapping.matrices`."""
        del weights
        # Drawn once, and again only where numbers have moved to another device or type.
        if self._stacked is None or (self._stacked.device, self._stacked.dtype) != (numbers.device, numbers.dtype):
            size = self.rank**2
            drawn = [self.mixers(name).reshape(self.num_numbers, size) for name in self.layers]
            self._stacked = torch.stack(drawn).to(numbers)
        return (numbers[:, None] @ self._stacked)[:, 0]

    def mixers(self, name: str) -> Float[Tensor, "numbers rank rank"]:
        """Return the matrices P of the layer called `name`."""
        return self.scale * self.normals(f"matrices of {name}", self.num_numbers, self.rank, self.rank)


class TensorTrainMapping(AbstractMapping):
    """R_m = sum_k y_k P_mk, where P[layer, number, row, column] is a trained tensor train of four cores."""

    def __init__(self, config: QuantumWeightedConfig, num_numbers: int, seed: int) -> None:
        super().__init__(config, num_numbers, seed)
        bond = self.bond = config.bond_dimension
        # The core of the layers has no row before a layer joins.
        shapes = [(bond, num_numbers, bond), (bond, self.rank, bond), (bond, self.rank)]
        self.append(nn.Parameter(torch.empty(0, bond)))
        self.extend(nn.Parameter(self._core(f"core {place}", *shape)) for place, shape in enumerate(shapes, 1))

    def _core(self, name: str, *shape: int) -> Tensor:
        # Each entry of P is a sum of bond**3 products of four entries, and is to have the variance of a random P.
        size = (self.scale / self.bond**1.5) ** 0.25
        core: Tensor = size * self.normals(name, *shape)
        return core.to(torch.float32)

    def add_layer(self, name: str) -> None:
        """Make room for one more layer: a row of the first core."""
        super().add_layer(name)
        self[0] = grown(self[0], self._core(f"core of {name}", 1, self.bond))

    def matrices(
        self, numbers: Float[Tensor, "layers numbers"], weights: Sequence[Tensor]
    ) -> Float[Tensor, "layers entries"]:
        """Return sum_k y_k P_mk; see `AbstractMapping.matrices`."""
        # Numbers first: P of all layers would be numbers times as large as what is wanted.
        layers, by_number, rows, columns = weights
        return torch.einsum("mk,ma,akb,bic,cj->mij", numbers, layers, by_number, rows, columns).flatten(1)


class NetworkMapping(AbstractMapping):
    """R_m = sum_k f(m, k, y_k) - f(m, k, 0): a trained network reads where a number goes and what it is, as in QPA.

        f(m, k, y) = W_2 tanh(W_1 [code of m, code of k, y] + b_1)

    QPA's network reads the bits of a basis state; here a code of fixed random signs stands for the layer, whose place
    among all is not known before the last has joined. The second term makes R zero where the numbers are.
    """

    CODE = 16
    _codes: Tensor | None = None

    def __init__(self, config: QuantumWeightedConfig, num_numbers: int, seed: int) -> None:
        super().__init__(config, num_numbers, seed)
        num_features, hidden_size = 2 * self.CODE + 1, config.hidden_size
        inner = self.normals("network, inner", hidden_size, num_features) / math.sqrt(num_features)
        # To first order R is y times the slope of f, of which tanh' and W_1's last column are factors below 1.
        spread = self.scale * math.sqrt(num_features / hidden_size)
        outer = spread * self.normals("network, outer", self.rank**2, hidden_size)
        self.extend(nn.Parameter(weight.to(torch.float32)) for weight in (inner, torch.zeros(hidden_size), outer))

    def add_layer(self, name: str) -> None:
        """Make room for one more layer."""
        super().add_layer(name)
        self._codes = None

    def matrices(
        self, numbers: Float[Tensor, "layers numbers"], weights: Sequence[Tensor]
    ) -> Float[Tensor, "layers entries"]:
        """Return sum_k f(m, k, y_k) - f(m, k, 0); see `AbstractMapping.matrices`."""
        inner, bias, outer = weights
        if self._codes is None or (self._codes.device, self._codes.dtype) != (numbers.device, numbers.dtype):
            names = [f"code of {name}" for name in self.layers]
            names += [f"code of number {k}" for k in range(self.num_numbers)]
            self._codes = torch.stack([self.normals(name, self.CODE) for name in names]).sign().to(numbers)
        of_layers, of_numbers = self._codes.split([len(self.layers), self.num_numbers])
        # W_1 applied to its three parts apart: (layers, 1, hidden) + (numbers, hidden) + (layers, numbers, hidden).
        by_layer, by_number, by_value = inner.split([self.CODE, self.CODE, 1], dim=1)
        place = (of_layers @ by_layer.T)[:, None] + of_numbers @ by_number.T + bias
        hidden = torch.tanh(place + numbers[..., None] * by_value[:, 0]) - torch.tanh(place)
        return hidden.sum(1) @ outer.T


MAPPINGS: dict[str, type[AbstractMapping]] = {
    "random": RandomMapping,
    "train": TensorTrainMapping,
    "network": NetworkMapping,
}
"""Mappings by the name that the option `mapping` gives them."""


def grown(weight: nn.Parameter, rows: Tensor) -> nn.Parameter:
    """Return a parameter with more rows, trained if it was; without values where it has none."""
    whole = torch.cat([weight.detach(), rows.to(weight)])
    return nn.Parameter(whole, requires_grad=weight.requires_grad)

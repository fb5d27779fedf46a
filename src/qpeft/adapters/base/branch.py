"""One adapter beside one linear layer: from x to the update, and what factored branches share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qpeft.adapters.base.factors import AbstractFactor


class AbstractBranch(nn.Module, ABC):
    """The update that one adapter adds to one linear layer, in the type of the branch's weights."""

    @abstractmethod
    def forward(self, x: Float[Tensor, "*batch in_features"]) -> Float[Tensor, "*batch out_features"]:
        """The update for inputs x."""

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights, and of x and the update."""
        return next(self.parameters()).dtype

    def without_autocast(self) -> AbstractContextManager[object]:
        """A context in which weights are multiplied in their own type."""
        kind = next(self.parameters()).device.type
        return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


class AbstractMatrixBranch(AbstractBranch):
    """A branch whose update is a matrix times x, whatever x is."""

    @abstractmethod
    def matrix(self) -> Float[Tensor, "out_features in_features"]:
        """The matrix, scaling included, in the type of the weights."""


@dataclass(frozen=True)
class _Contracted:
    """Both factors as matrices, and the tensors they came from in the state of that moment.

    The weights are held, so that no other tensor can take their place in memory and be mistaken for them.
    """

    factors: tuple[Tensor, Tensor]
    weights: tuple[Tensor, ...]
    versions: tuple[int, ...]

    def is_current(self, weights: tuple[Tensor, ...]) -> bool:
        return all(
            now.data_ptr() == then.data_ptr() and now._version == version
            for now, then, version in zip(weights, self.weights, self.versions, strict=True)
        )


class FactoredBranch(AbstractBranch):
    """A bottleneck between two wide factors.

        h = x down^T;   update = scaling * bottleneck(h) up

    Shapes: x (..., in_features); h (..., rank); down (rank, in_features); up (rank, out_features).

    Attributes:
        keeps_factors: whether both are kept as matrices while evaluating. Must be False where the memory of weights is
            refilled without a trace, as in sharded models.
    """

    def __init__(self, down: AbstractFactor, up: AbstractFactor, *, scaling: float, dropout: float) -> None:
        super().__init__()
        self.down, self.up, self.scaling = down, up, scaling
        self.dropout = nn.Dropout(dropout)
        self.keeps_factors = True
        self._contracted: _Contracted | None = None

    def forward(self, x: Float[Tensor, "*batch in_features"]) -> Float[Tensor, "*batch out_features"]:
        """The update for inputs x, in the type of the branch's weights."""
        down, up = self.effective_factors()
        h = nn.functional.linear(self.dropout(x), down)
        # Scaled where it is narrow: the product with `up` is as wide as the layer.
        return (self.scaling * self.bottleneck(h)) @ up

    def bottleneck(self, h: Float[Tensor, "*batch rank"]) -> Float[Tensor, "*batch rank"]:
        """What stands between the factors: nothing, unless a method puts something there."""
        return h

    def effective_factors(self) -> tuple[Float[Tensor, "rank in_features"], Float[Tensor, "rank out_features"]]:
        """`down` and `up` as matrices, contracted anew in training, kept while evaluating until a weight changes.

        A change is seen as torch counts it: optimizers, `load_state_dict`, in-place operations and new tensors, but not
        writing into `weight.data`; after that, one forward pass with gradients or in training mode forgets.
        """
        if torch.compiler.is_compiling():
            return self._contract()
        if self.training or torch.is_grad_enabled() or not self.keeps_factors:
            self._contracted = None
            return self._contract()
        weights = tuple(tensor for factor in (self.down, self.up) for tensor in _tensors(factor))
        if any(weight.is_inference() for weight in weights):
            self._contracted = None
            return self._contract()
        if self._contracted is None or not self._contracted.is_current(weights):
            held = tuple(weight.detach() for weight in weights)
            self._contracted = _Contracted(self._contract(), held, tuple(weight._version for weight in weights))
        return self._contracted.factors

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_contracted": None}

    def _contract(self) -> tuple[Tensor, Tensor]:
        # Two small products of weights, whatever the number of tokens: rounding them would save nothing.
        with self.without_autocast():
            # PEFT gives parameters the type they are trained in, and leaves buffers in that of the base model.
            return self.down().to(self.dtype), self.up().to(self.dtype)


def _tensors(factor: nn.Module) -> Iterator[Tensor]:
    """All that a factor is made from: what is trained, and what is frozen."""
    yield from factor.parameters()
    yield from factor.buffers()


class FactoredMatrixBranch(FactoredBranch, AbstractMatrixBranch):
    """Two wide factors with nothing but a matrix between them."""

    def matrix(self) -> Float[Tensor, "out_features in_features"]:
        """scaling up^T bottleneck down, of rank `rank` at most."""
        down, up = self.effective_factors()
        with self.without_autocast():
            return self.scaling * (up.T @ self.bottleneck(down.T).T)

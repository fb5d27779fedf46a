"""The wide matrices of the adapter: (rank, width) factors, dense, a matrix product operator, or made from one.

Both factors of an adapter are built as (rank, width): `down` reads x with it, `up` writes with its transpose. All of it
depends on weights only, so a step contracts each once, from the rank side, whatever the number of tokens.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qpeft.adapters.base.config import check_counts
from qpeft.errors import AdapterError
from qpeft.tensor_networks import MatrixProductOperator, Modes, factorize, mpo_parameter_count

Side = Literal["narrow", "wide"]


class AbstractFactor(nn.Module, ABC):
    """A (rank, width) matrix made from weights."""

    @abstractmethod
    def forward(self) -> Float[Tensor, "rank width"]:
        """The matrix."""


class AbstractRandomFactor(AbstractFactor):
    """A factor that can start at random or at zero."""

    @abstractmethod
    def initialize(self, *, variance: float, generator: torch.Generator | None) -> None:
        """Random weights that give entries of this variance."""

    @abstractmethod
    def zero(self) -> None:
        """Make the matrix zero, so that a fresh adapter changes nothing; it can still learn."""


class AbstractPublishedFactor(AbstractRandomFactor):
    """One that can also start as QTHA's authors published it."""

    @abstractmethod
    def initialize_kaiming(self, reads: Side, generator: torch.Generator | None) -> None:
        """Kaiming's first values, whatever variance results.

        Args:
            reads: the side that the factor reads when it is applied, whose width they follow: `down` the wide one, `up`
                the narrow one.
            generator: of random numbers; None for torch's global one.
        """


class DenseFactor(AbstractPublishedFactor):
    """A plain (rank, width) matrix, as in LoRA; or one that is saved with the adapter but not trained."""

    matrix: Tensor

    def __init__(self, rank: int, width: int, *, trained: bool = True) -> None:
        super().__init__()
        self.trained = trained
        if trained:
            self.matrix = nn.Parameter(torch.empty(rank, width))
        else:
            self.register_buffer("matrix", torch.empty(rank, width))

    def forward(self) -> Float[Tensor, "rank width"]:
        """The matrix."""
        return self.matrix

    @torch.no_grad()
    def initialize(self, *, variance: float, generator: torch.Generator | None) -> None:
        """Orthogonal rows, entries of this variance."""
        _orthogonal(self.matrix, variance, generator)

    @torch.no_grad()
    def initialize_kaiming(self, reads: Side, generator: torch.Generator | None) -> None:
        """Kaiming-uniform entries."""
        _kaiming_uniform(self.matrix, reads, generator)

    @torch.no_grad()
    def zero(self) -> None:
        """Make the matrix zero."""
        self.matrix.zero_()


class MpoFactor(AbstractPublishedFactor):
    """A (rank, width) matrix as bottleneck (rank, inner) times matrix product operator (inner, width).

    Raises: FactorizationError if a size is below 1.
    """

    def __init__(self, rank: int, inner: Modes, wide: Modes, *, bond_dimension: int) -> None:
        super().__init__()
        self.bottleneck = nn.Parameter(torch.empty(rank, inner.width))
        self.operator = MatrixProductOperator(inner, wide, bond_dimension=bond_dimension)

    def forward(self) -> Float[Tensor, "rank width"]:
        """The matrix, contracted core by core from the rank side; (inner, width) is never formed."""
        return self.operator.left_multiply(self.bottleneck)

    @torch.no_grad()
    def initialize(self, *, variance: float, generator: torch.Generator | None) -> None:
        """Every step of the contraction a scaled (semi-)orthogonal matrix, entries of the product of this variance."""
        _orthogonal_cores(self.operator, generator)
        _orthogonal(self.bottleneck, variance, generator)

    @torch.no_grad()
    def initialize_kaiming(self, reads: Side, generator: torch.Generator | None) -> None:
        """Kaiming-uniform bottleneck, Kaiming-normal cores."""
        _kaiming_uniform(self.bottleneck, reads, generator)
        _kaiming_cores(self.operator, reads, generator)

    @torch.no_grad()
    def zero(self) -> None:
        """Make the product zero through its last core, as published; the other weights keep their values."""
        self.operator.cores[-1].zero_()


class BareMpoFactor(AbstractPublishedFactor):
    """A (rank, width) matrix that is a matrix product operator itself, without a matrix before it.

    Raises: FactorizationError if a size is below 1.
    """

    def __init__(self, narrow: Modes, wide: Modes, *, bond_dimension: int) -> None:
        super().__init__()
        self.operator = MatrixProductOperator(narrow, wide, bond_dimension=bond_dimension)

    def forward(self) -> Float[Tensor, "rank width"]:
        """The matrix."""
        return self.operator.dense()

    @torch.no_grad()
    def initialize(self, *, variance: float, generator: torch.Generator | None) -> None:
        """Cores as those of `MpoFactor`, entries of the product of this variance on average."""
        _orthogonal_cores(self.operator, generator)
        self.operator.cores[0].mul_(math.sqrt(variance * self.operator.narrow.width))

    @torch.no_grad()
    def initialize_kaiming(self, reads: Side, generator: torch.Generator | None) -> None:
        """Kaiming-normal cores."""
        _kaiming_cores(self.operator, reads, generator)

    @torch.no_grad()
    def zero(self) -> None:
        """Make the operator zero through its last core, as published; the other cores keep their values."""
        self.operator.cores[-1].zero_()


Factor = DenseFactor | MpoFactor | BareMpoFactor


def _orthogonal(matrix: Tensor, variance: float, generator: torch.Generator | None) -> None:
    """Orthogonal rows or columns, whichever are fewer, entries of this variance."""
    nn.init.orthogonal_(matrix, gain=math.sqrt(variance * max(matrix.shape)), generator=generator)


def _kaiming_uniform(matrix: Tensor, reads: Side, generator: torch.Generator | None) -> None:
    nn.init.kaiming_uniform_(matrix, a=0, mode="fan_out" if reads == "narrow" else "fan_in", generator=generator)


def _kaiming_cores(operator: MatrixProductOperator, reads: Side, generator: torch.Generator | None) -> None:
    for core in operator.cores.parameters():
        left, narrow, wide, _ = core.shape
        inputs = left * (narrow if reads == "narrow" else wide)
        nn.init.normal_(core, std=math.sqrt(2 / inputs), generator=generator)


def _orthogonal_cores(operator: MatrixProductOperator, generator: torch.Generator | None) -> None:
    for core in operator.cores.parameters():
        left, narrow, wide, right = core.shape
        # Variance per entry is kept by a step of the contraction if the columns of its matrix have norm 1.
        matrix = torch.empty(left * narrow, wide * right)
        nn.init.orthogonal_(matrix, gain=math.sqrt(max(matrix.shape) / len(matrix)), generator=generator)
        core.copy_(matrix.reshape(core.shape))


def build_factor(
    kind: str,
    rank: int,
    width: int,
    *,
    num_cores: int,
    inner_features: int | None,
    bond_dimension: int | None,
    parameter_share: float,
) -> Factor:
    """The factor that a config asks for, uninitialised: 'dense', 'frozen', 'mpo', or 'bare_mpo' (as wide as the rank
    inside).

    Sizes left at None: the inner width is the smallest power of two that is at least the rank; the bond dimension is
    the largest for which the factor keeps to `parameter_share` of LoRA's rank * width parameters, or 1.

    Args:
        kind: 'dense', 'frozen', 'mpo' or 'bare_mpo'.
        rank: narrow side.
        width: features of the layer on the wide side.
        num_cores: tensors of an MPO.
        inner_features: width inside an MPO; None for the smallest power of two that holds the rank.
        bond_dimension: of the links of an MPO; None for the largest that keeps to the share.
        parameter_share: of the parameters of a dense factor that an MPO may have, above 0.
    """
    if kind in ("dense", "frozen"):
        return DenseFactor(rank, width, trained=kind == "dense")
    is_bare = kind == "bare_mpo"
    if is_bare:
        inner_features = rank
    elif inner_features is None:
        inner_features = 1 << (rank - 1).bit_length()
    inner, wide = factorize(inner_features, num_cores), factorize(width, num_cores)
    if bond_dimension is None:
        budget = parameter_share * rank * width - (0 if is_bare else rank * inner_features)
        bond_dimension = 1
        while mpo_parameter_count(inner, wide, bond_dimension=bond_dimension + 1) <= budget and num_cores > 1:
            bond_dimension += 1
    if is_bare:
        return BareMpoFactor(inner, wide, bond_dimension=bond_dimension)
    return MpoFactor(rank, inner, wide, bond_dimension=bond_dimension)


# Factors that a config gives for the widths of layers, such as [[16, 8, 8, 4], [8, 8, 4, 4]] for 4096 and 1024.


def check_factors(option_name: str, lists: Any) -> None:
    """Raises: AdapterError unless `lists` holds lists of whole numbers, each with a product of its own."""
    if not isinstance(lists, list) or not lists or not all(isinstance(factors, list) and factors for factors in lists):
        raise AdapterError(f"{option_name} must hold a list for each width, as [[16, 8, 8, 4]]; got {lists!r}.")
    for factors in lists:
        check_counts({f"every number of {option_name} {factors}": factor for factor in factors})
    products = [math.prod(factors) for factors in lists]
    if len({*products}) < len(products):
        raise AdapterError(
            f"{option_name} has two lists for one width: the products are {', '.join(map(str, products))}."
        )


def given_factors(option_name: str, lists: Sequence[Sequence[int]], width: int, balanced: Modes) -> Modes:
    """The list whose product is the width.

    Args:
        option_name: that the lists were given in, for the error.
        lists: factorisations that the user gave, such as [[24, 24], [8, 72]].
        width: that one of them must multiply to.
        balanced: what is proposed where none does.

    Raises: AdapterError if there is none, proposing the balanced factors.
    """
    given = {math.prod(factors): tuple(factors) for factors in lists}
    if width not in given:
        raise AdapterError(
            f"{option_name} has factors of {', '.join(map(str, given))}, but a layer has width {width}: add factors "
            f"whose product is {width}, such as {list(balanced.factors)}, or leave {option_name} out."
        )
    return Modes(width, given[width])

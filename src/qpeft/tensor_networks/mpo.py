"""Matrix product operators between a narrow and a wide space.

An operator W of shape (narrow, wide) is a chain of cores; with narrow = n_1...n_K and wide = w_1...w_K,

    W[(i_1..i_K), (j_1..j_K)] = G_1[i_1, j_1] G_2[i_2, j_2] ... G_K[i_K, j_K],

where G_k[i, j] is a matrix of the bond dimensions on either side (1 at both ends). Also called a tensor-train operator
(Oseledets, 2011); as a layer: Novikov et al., arXiv:1509.06569.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qpeft.errors import FactorizationError


class MatrixProductOperator(nn.Module):
    """The operator, its cores as trainable parameters of shape (left bond, narrow mode, wide mode, right bond).

    The cores are left uninitialised: scale and zeros are the business of whoever combines operators.
    Raises: FactorizationError if the modes differ in number or the bond dimension is below 1.
    """

    def __init__(self, narrow: Modes, wide: Modes, *, bond_dimension: int) -> None:
        super().__init__()
        self.narrow, self.wide, self.bond_dimension = narrow, wide, bond_dimension
        shapes = _core_shapes(narrow, wide, bond_dimension)
        self.cores = nn.ParameterList(nn.Parameter(torch.empty(shape)) for shape in shapes)

    def left_multiply(self, matrix: Float[Tensor, "rank narrow"]) -> Float[Tensor, "rank wide"]:
        """Return `matrix @ W`. A W larger than the result is never formed: its cores are taken to `matrix` in turn."""
        rank, narrow, wide = len(matrix), self.narrow, self.wide
        if narrow.width <= rank:
            # W is no larger, and going through it takes half the operations. Their number is what a GPU waits for.
            return matrix @ self.dense()
        # Axes of t: rows and wide modes already contracted; narrow modes still open; the bond between them.
        t = nn.functional.pad(matrix, (0, narrow.padded - narrow.width)).reshape(rank, narrow.padded, 1)
        for core in self.cores:
            left, mode, new, right = core.shape
            rows, open_modes = t.shape[0], t.shape[1] // mode
            t = t.reshape(rows, mode, open_modes, left).permute(0, 2, 3, 1).reshape(rows * open_modes, left * mode)
            # The whole contraction is one matrix product: bond and narrow mode go, wide mode and next bond come.
            t = t @ core.reshape(left * mode, new * right)
            t = t.reshape(rows, open_modes, new, right).transpose(1, 2).reshape(rows * new, open_modes, right)
        return t.reshape(rank, wide.padded)[:, : wide.width]

    def dense(self) -> Float[Tensor, "narrow wide"]:
        """Return W as a matrix."""
        t: Tensor
        t, *others = self.cores
        for core in others:
            t = t.reshape(-1, core.shape[0]) @ core.reshape(core.shape[0], -1)
        # Axes of t: narrow and wide mode of the first core, of the second, ...
        pairs = [size for sizes in zip(self.narrow.factors, self.wide.factors, strict=True) for size in sizes]
        order = [*range(0, len(pairs), 2), *range(1, len(pairs), 2)]
        whole = t.reshape(pairs).permute(order).reshape(self.narrow.padded, self.wide.padded)
        is_padded = whole.shape != (self.narrow.width, self.wide.width)
        return whole[: self.narrow.width, : self.wide.width] if is_padded else whole

    def extra_repr(self) -> str:
        """Return modes and bond dimension, for `print(model)`."""
        return f"narrow={self.narrow.factors}, wide={self.wide.factors}, bond_dimension={self.bond_dimension}"


def open_bond(bond_dimension: int, num_cores: int) -> Modes:
    """Return the narrow side of an operator that is a tensor train with its first bond left open.

    T[i, (j_1..j_K)] = G_1[i, j_1] G_2[j_2] ... G_K[j_K], where i counts the rows of that bond.
    """
    return Modes(bond_dimension, (bond_dimension, *[1] * (num_cores - 1)))


def mpo_parameter_count(narrow: Modes, wide: Modes, *, bond_dimension: int) -> int:
    """Return the number of parameters: sum over cores of left bond x narrow mode x wide mode x right bond.

    Args:
        narrow, wide: modes of its two sides.
        bond_dimension: between neighbouring cores.

    Raises: FactorizationError as the operator does.
    """
    return sum(torch.Size(shape).numel() for shape in _core_shapes(narrow, wide, bond_dimension))


def _core_shapes(narrow: Modes, wide: Modes, bond_dimension: int) -> Sequence[tuple[int, int, int, int]]:
    if len(narrow.factors) != len(wide.factors):
        raise FactorizationError(
            f"Both sides of an operator need as many modes as it has cores; got {narrow.factors} and {wide.factors}."
        )
    if bond_dimension < 1:
        raise FactorizationError(f"bond_dimension must be at least 1; got {bond_dimension}.")
    bonds = [1, *[bond_dimension] * (len(narrow.factors) - 1), 1]
    return list(zip(bonds[:-1], narrow.factors, wide.factors, bonds[1:], strict=True))


AWKWARD = 4.0
"""A width is padded when its largest factor exceeds the balanced size this many times."""

BALANCED = 2.0
"""A padded width's largest factor stays within this many times the balanced size."""


@dataclass(frozen=True)
class Modes:
    """A width and the factors that stand for it; `padded` exceeds `width` where no balanced product equals it."""

    width: int
    factors: tuple[int, ...]

    @property
    def padded(self) -> int:
        """Product of the factors."""
        return math.prod(self.factors)


@lru_cache(maxsize=4096)
def factorize(width: int, num_cores: int) -> Modes:
    """Return modes of `width` for `num_cores` cores, largest first.

    1. Of all ways to write the width as an ordered product of `num_cores` factors, largest first, take the one with the
       smallest sum: the most balanced one, and the cheapest to store.
    2. If its largest factor exceeds `AWKWARD` times the balanced size width**(1/num_cores), as of a prime, the width is
       padded: the smallest larger number whose largest factor stays within `BALANCED` times the balanced size takes its
       place, and whoever contracts the operator drops the surplus columns.

    Raises: FactorizationError if width or num_cores is below 1.
    """
    if width < 1 or num_cores < 1:
        raise FactorizationError(f"width and num_cores must be at least 1; got {width} and {num_cores}.")
    candidate, limit = width, AWKWARD
    while True:
        factors = _most_balanced(candidate, num_cores, largest=candidate)
        assert factors is not None
        if factors[0] <= max(1.0, limit * candidate ** (1 / num_cores)):
            return Modes(width, factors)
        # Looser for the width itself than for others: padding costs parameters that do nothing.
        candidate, limit = candidate + 1, BALANCED


@lru_cache(maxsize=65536)
def _most_balanced(product: int, count: int, largest: int) -> tuple[int, ...] | None:
    """Return `count` factors of `product`, descending, at most `largest`, of smallest sum; None if there are none."""
    if count == 1:
        return (product,) if product <= largest else None
    best: tuple[int, ...] | None = None
    # Descending factors: the first is at least the count-th root, so small divisors need not be tried.
    small = [divisor for divisor in range(1, math.isqrt(product) + 1) if product % divisor == 0]
    for factor in sorted({*small, *(product // divisor for divisor in small)}):
        if factor > largest or factor**count < product:
            continue
        rest = _most_balanced(product // factor, count - 1, factor)
        if rest is not None and (best is None or factor + sum(rest) < sum(best)):
            best = (factor, *rest)
    return best

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
        """`matrix @ W`. A W larger than the result is never formed: its cores are taken to `matrix` one by one."""
        # Where W is no larger, going through it takes half the operations, and their number is what a GPU waits for.
        return matrix @ self.dense() if self.narrow.width <= len(matrix) else self._multiply_by_cores(matrix)

    def dense(self) -> Float[Tensor, "narrow wide"]:
        """W as a matrix."""
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

    def _multiply_by_cores(self, matrix: Float[Tensor, "rank narrow"]) -> Float[Tensor, "rank wide"]:
        rank = len(matrix)
        # Axes of t: rows and wide modes already contracted; narrow modes still open; the bond between them.
        padding = self.narrow.padded - self.narrow.width
        t = nn.functional.pad(matrix, (0, padding)).reshape(rank, self.narrow.padded, 1)
        for core in self.cores:
            left, narrow, wide, right = core.shape
            rows, open_modes = t.shape[0], t.shape[1] // narrow
            t = t.reshape(rows, narrow, open_modes, left).permute(0, 2, 3, 1).reshape(rows * open_modes, left * narrow)
            t = t @ core.reshape(left * narrow, wide * right)
            t = t.reshape(rows, open_modes, wide, right).transpose(1, 2).reshape(rows * wide, open_modes, right)
        return t.reshape(rank, self.wide.padded)[:, : self.wide.width]

    def extra_repr(self) -> str:
        """Modes and bond dimension, for `print(model)`."""
        return f"narrow={self.narrow.factors}, wide={self.wide.factors}, bond_dimension={self.bond_dimension}"


def open_bond(bond_dimension: int, num_cores: int) -> Modes:
    """Narrow side of an operator that is a tensor train with its first bond left open: T[i, (j_1..j_K)] =
    G_1[i, j_1] G_2[j_2] ... G_K[j_K], where i counts the rows of that bond."""
    return Modes(bond_dimension, (bond_dimension, *[1] * (num_cores - 1)))


def mpo_parameter_count(narrow: Modes, wide: Modes, *, bond_dimension: int) -> int:
    """Number of parameters of such an operator: sum over cores of left bond x narrow mode x wide mode x right bond.

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


# Factorisation of a width into balanced modes, the dimensions of a matrix product operator's cores.
#
# The rule, for any width:
#
# 1. Of all ways to write the width as an ordered product of `num_cores` factors, largest first, take the one with the
#    smallest sum: the most balanced one, and the cheapest to store.
# 2. If its largest factor exceeds four times the balanced size width**(1/num_cores) (a prime width, say), the width is
#    padded: the smallest larger number whose largest factor stays within twice the balanced size takes its place, and
#    whoever contracts the operator drops the surplus columns.


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
    """Modes of `width` for `num_cores` cores, largest first, by the rule above.

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
        candidate, limit = candidate + 1, BALANCED


@lru_cache(maxsize=65536)
def _most_balanced(product: int, count: int, largest: int) -> tuple[int, ...] | None:
    """`count` factors of `product`, descending and at most `largest`, of smallest sum; None if there are none."""
    if count == 1:
        return (product,) if product <= largest else None
    best: tuple[int, ...] | None = None
    # Descending factors: the first is at least the count-th root, so small divisors need not be tried.
    for factor in _divisors(product):
        if factor > largest or factor**count < product:
            continue
        rest = _most_balanced(product // factor, count - 1, factor)
        if rest is not None and (best is None or factor + sum(rest) < sum(best)):
            best = (factor, *rest)
    return best


@lru_cache(maxsize=65536)
def _divisors(number: int) -> tuple[int, ...]:
    small = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return tuple(sorted({*small, *(number // d for d in small)}))

"""Products of small matrices that each act on two axes of a factored width, applied one after the other.

A vector of width n_1 n_2 ... n_K is read as a tensor with K axes. Each matrix mixes two of them and leaves the others
alone, as a two-qubit gate does in a circuit. Every pair of axes has one matrix, and they act in this order, the last
axis first:

    (K-1, K), (K-2, K), ..., (1, K), (K-2, K-1), ..., (1, 2)

Where input and output widths differ, an axis that shrinks does so in the first matrix that acts on it, and one that
grows in the last, so that nothing in between is larger than it has to be.
Source: QuanTA, arXiv:2406.00132; the order is that of its released code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from qpeft.errors import FactorizationError
from qpeft.tensor_networks.mpo import Modes


@dataclass(frozen=True)
class PairStep:
    """One matrix of such a product: the two axes it acts on, counted from 0, and their sizes before and after."""

    axes: tuple[int, int]
    before: tuple[int, int]
    after: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix."""
        return math.prod(self.after), math.prod(self.before)


@dataclass(frozen=True)
class PairNetwork:
    """The shape of such a product between two factored widths; whoever uses it keeps the matrices.

    Raises: FactorizationError if the widths differ in their number of axes, or have fewer than two.
    """

    inputs: Modes
    outputs: Modes

    def __post_init__(self) -> None:
        if len(self.inputs.factors) != len(self.outputs.factors) or len(self.inputs.factors) < 2:
            raise FactorizationError(
                f"Matrices on pairs of axes need two axes or more, as many for the inputs as for the outputs; got "
                f"{self.inputs.factors} and {self.outputs.factors}."
            )

    @cached_property
    def steps(self) -> tuple[PairStep, ...]:
        """The matrices, in the order in which they act."""
        count, sizes, steps = len(self.inputs.factors), list(self.inputs.factors), []
        pairs = [(first, second) for second in reversed(range(count)) for first in reversed(range(second))]
        for k, pair in enumerate(pairs):
            before = tuple(sizes)
            for axis in pair:
                # An axis that shrinks does so at once, one that grows at the last chance: less is in between.
                is_last = all(axis not in later for later in pairs[k + 1 :])
                if is_last or self.outputs.factors[axis] < sizes[axis]:
                    sizes[axis] = self.outputs.factors[axis]
            first, second = pair
            steps.append(PairStep(pair, (before[first], before[second]), (sizes[first], sizes[second])))
        return tuple(steps)

    def apply(self, x: Float[Tensor, "*batch in_features"], matrices: Sequence[Tensor]) -> Tensor:
        """Return the product times each vector of x, shape (..., out_features); no matrix of the full widths is formed.

        Args:
            x: vectors of the input width.
            matrices: one for each of `steps`, of its shape.
        """
        inputs, outputs = self.inputs, self.outputs
        vectors = x.numel() // inputs.width
        t = torch.nn.functional.pad(x, (0, inputs.padded - inputs.width)).reshape(vectors, *inputs.factors)
        for step, matrix in zip(self.steps, matrices, strict=True):
            axes = [axis + 1 for axis in step.axes]
            # Its two axes go last: one matrix product then takes all other axes along.
            t = t.movedim(axes, (-2, -1))
            others = t.shape[:-2]
            t = t.reshape(math.prod(others), math.prod(step.before)) @ matrix.T
            t = t.reshape(*others, *step.after).movedim((-2, -1), axes)
        return t.reshape(*x.shape[:-1], outputs.padded)[..., : outputs.width]

    def dense(self, matrices: Sequence[Tensor]) -> Float[Tensor, "out_features in_features"]:
        """Return the product as a matrix of the full widths, from the matrices alone.

        All matrices that share their second axis are contracted first, one axis at a time; then those groups, which
        act on ever more axes, by plain matrix products. The full size is reached only at the very end.
        """
        product = matrices[0].new_ones(1, 1)
        for second in range(1, len(self.inputs.factors)):
            members = [(step, m) for step, m in zip(self.steps, matrices, strict=True) if step.axes[1] == second]
            size = members[0][0].before[1]
            # Axes of t: the other axes after, this one after, the others before, this one before.
            t = torch.eye(size, dtype=matrices[0].dtype, device=matrices[0].device).reshape(1, size, 1, size)
            for step, matrix in members:
                t = torch.einsum("abcd,odpe->aobcpe", matrix.reshape(*step.after, *step.before), t)
                t = t.flatten(3, 4).flatten(0, 1)
            group = t.reshape(t.shape[0] * t.shape[1], t.shape[2] * t.shape[3])
            # Rows of the product are outputs already finished, its columns what the next group still acts on.
            product = product @ group.reshape(product.shape[1], -1)
            product = product.reshape(-1, group.shape[1])
        return product[: self.outputs.width, : self.inputs.width]

"""What has a gradient here, as Functions of torch: for `backward()`, and for torch.func (vmap, grad, vjp, jacrev).

An operation maps rows and weights to values, row by row, and says how gradients come back. The two Functions carry it
through autograd: one for the values, one for the gradients, so that the second can be mapped as well, and can say that
it has no derivative of its own. What an operation gets are plain tensors, never the wrappers of a transformation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, TypeAlias

import torch
from torch import Tensor

from qpeft.errors import GradientError, SimulationError
from qpeft.simulation.checks import NOT_MAPPED

InDims: TypeAlias = tuple[int | None, ...]


class AbstractOperation(ABC):
    """Values of rows that share weights. Stateless: it may be asked for gradients of values that it never made."""

    name = "expectations()"
    """For errors."""
    keeps_values = False
    """Whether gradients are computed from the values, rather than from the rows."""

    @property
    @abstractmethod
    def num_values(self) -> int:
        """Of a row."""

    @abstractmethod
    def values(self, rows: Tensor, weights: Tensor) -> Tensor:
        """(rows, columns) and (num_weights,) to (rows, values)."""

    @abstractmethod
    def gradients(self, kept: Tensor, weights: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of sum(values * grad) by rows and by weights, in their shapes; `kept` is as `keeps_values` says.

        Args:
            kept: rows or values of the forward pass, as `keeps_values` says.
            weights: (num_weights,), radians.
            grad: from above, in the shape of the values.
        """


def row_values(operation: AbstractOperation, rows: Tensor, weights: Tensor) -> Tensor:
    """`operation.values`, differentiable once in rows and weights, and mapped over by torch.func.vmap.

    A map over rows, and over gradients of rows alone, becomes one call with more rows. A map over weights, and one that
    wants gradients by weights for each of its entries, is a loop.

    Args:
        operation: whose values are wanted.
        rows: (rows, ...), one evaluation each.
        weights: (num_weights,), radians, shared by all rows.

    Raises: GradientError in forward mode, and for second derivatives.
    """
    values: Tensor = _Values.apply(operation, rows, weights)
    return values


class FirstOrder(torch.autograd.Function):
    """A Function without forward mode, which says so. Subclasses have `setup_context`, as torch.func needs.

    It is not mapped over either, unless a subclass says how.
    """

    @staticmethod
    def jvp(_: Any, *__: Any) -> None:
        raise GradientError(
            "Values of circuits have no forward-mode derivative (torch.func.jvp, jacfwd, hessian, forward_ad). Use "
            "reverse mode: torch.func.grad, vjp or jacrev, or backward()."
        )

    @staticmethod
    def vmap(_: Any, __: InDims, *___: Any) -> Any:
        raise SimulationError(NOT_MAPPED)


class _Values(FirstOrder):
    @staticmethod
    def forward(operation: AbstractOperation, rows: Tensor, weights: Tensor) -> Tensor:
        if rows.is_meta or not len(rows):  # there are shapes alone
            return rows.new_empty(len(rows), operation.num_values)
        return operation.values(rows, weights)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.operation, rows, weights = inputs
        ctx.save_for_backward(output if ctx.operation.keeps_values else rows, weights)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        _, by_rows, by_weights = ctx.needs_input_grad
        # Only a backward pass that may itself be differentiated or mapped, as those of torch.func, needs the Function.
        compute = _Gradients.apply if torch.is_grad_enabled() else _gradients
        kept, weights = ctx.saved_tensors
        rows_grad, weights_grad = compute(ctx.operation, by_weights, kept, weights, grad)
        return None, rows_grad if by_rows else None, weights_grad if by_weights else None

    @staticmethod
    def vmap(
        info: Any, in_dims: InDims, operation: AbstractOperation, rows: Tensor, weights: Tensor
    ) -> tuple[Tensor, int]:
        size, (_, rows_dim, weights_dim) = info.batch_size, in_dims
        rows = _mapped(rows, rows_dim, size)
        if weights_dim is None:
            return row_values(operation, rows.flatten(0, 1), weights).unflatten(0, rows.shape[:2]), 0
        pairs = zip(rows, weights.unbind(weights_dim), strict=True)
        return torch.stack([row_values(operation, *pair) for pair in pairs]), 0


class _Gradients(FirstOrder):
    @staticmethod
    def forward(
        operation: AbstractOperation, by_weights: bool, kept: Tensor, weights: Tensor, grad: Tensor
    ) -> tuple[Tensor, Tensor]:
        return _gradients(operation, by_weights, kept, weights, grad)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], _: tuple[Tensor, Tensor]) -> None:
        ctx.operation = inputs[0]

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> None:
        raise GradientError(
            f"{ctx.operation.name} has first derivatives only. For second ones, difference its gradients, or evaluate "
            "it at angles shifted by pi/2 (parameter-shift rule) and differentiate that."
        )

    @staticmethod
    def vmap(
        info: Any,
        in_dims: InDims,
        operation: AbstractOperation,
        by_weights: bool,
        kept: Tensor,
        weights: Tensor,
        grad: Tensor,
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int | None]]:
        size, (_, _, kept_dim, weights_dim, grad_dim) = info.batch_size, in_dims
        kept, grad = _mapped(kept, kept_dim, size), _mapped(grad, grad_dim, size)
        if weights_dim is None and not by_weights:
            flat = _Gradients.apply(operation, by_weights, kept.flatten(0, 1), weights, grad.flatten(0, 1))
            return (flat[0].unflatten(0, kept.shape[:2]), flat[1]), (0, None)
        each = _mapped(weights, weights_dim, size)
        parts = zip(kept, each, grad, strict=True)
        of_rows, of_weights = zip(*(_Gradients.apply(operation, by_weights, *part) for part in parts), strict=True)
        return (torch.stack(of_rows), torch.stack(of_weights)), (0, 0)


def _gradients(
    operation: AbstractOperation, _by_weights: bool, kept: Tensor, weights: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor]:
    if kept.is_meta or not len(kept):
        return torch.zeros_like(kept), torch.zeros_like(weights)
    try:
        return operation.gradients(kept, weights, grad)
    except RuntimeError as error:
        # The older vmap of torch.autograd asks no Function how it is mapped.
        if "vmap" in str(error) or "Batching rule" in str(error):
            raise GradientError(
                f"Gradients of {operation.name} come in no batch from torch.autograd (vectorize=True, "
                "is_grads_batched, check_batched_grad). Use torch.func.jacrev, or leave that option off."
            ) from error
        raise


def _mapped(tensor: Tensor, dim: int | None, size: int) -> Tensor:
    """With the axis that is mapped over first."""
    return tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)

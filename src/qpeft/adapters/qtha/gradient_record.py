"""What a step's backward passes through a device said of one module: sums, and how far off they are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from qpeft.devices.differentiation import DeviceGradients


@dataclass
class GradientRecord:
    """Gradients of the circuits of one module, over its backward passes since `DeviceEvaluator.begin_step`.

    Attributes:
        passes: so many.
        weights: gradient by the circuits' weights, summed over the passes, (num_circuits, num_weights).
        weight_errors: its standard errors, same shape.
        squares, variances: sums over the entries of all gradients, by inputs and by weights, of their squares and of
            their squared standard errors.

    Standard errors are as in `DeviceGradients`; NaN if one of them is.
    """

    passes: int
    weights: Tensor
    weight_errors: Tensor
    squares: float = 0.0
    variances: float = 0.0

    @classmethod
    def empty(cls, gradients: DeviceGradients) -> GradientRecord:
        """Without a pass, for gradients of this shape."""
        return cls(0, torch.zeros_like(gradients.weights), torch.zeros_like(gradients.weights))

    @property
    def relative_error(self) -> float:
        """Root of the summed variances over the length of the gradients; NaN if these are all zero."""
        return math.sqrt(self.variances / self.squares) if self.squares else math.nan

    def add(self, gradients: DeviceGradients) -> None:
        """Count one more pass, whose errors are independent of the others'."""
        self.passes += 1
        self.weights = self.weights + gradients.weights
        self.weight_errors = torch.hypot(self.weight_errors, gradients.weight_errors)
        self.squares += _sum_of_squares(gradients.inputs, gradients.weights)
        self.variances += _sum_of_squares(gradients.input_errors, gradients.weight_errors)


def _sum_of_squares(*tensors: Tensor) -> float:
    return sum(tensor.double().square().sum().item() for tensor in tensors)

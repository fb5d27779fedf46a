"""What must hold for inputs and weights before a circuit is evaluated, here or on a device."""

from __future__ import annotations

import torch
from torch import Tensor

from qpeft.circuits import Circuit
from qpeft.errors import SimulationError


def check_shapes(circuit: Circuit, inputs: Tensor, weights: Tensor) -> None:
    """Raises: SimulationError unless inputs (..., num_inputs) and weights (num_weights,) are real, on one device."""
    if inputs.ndim < 1 or inputs.shape[-1] != circuit.num_inputs:
        raise SimulationError(
            f"The circuit reads {circuit.num_inputs} input angle(s), so inputs must end in an axis of that size; "
            f"got shape {tuple(inputs.shape)}."
        )
    if weights.shape != (circuit.num_weights,):
        raise SimulationError(
            f"The circuit has {circuit.num_weights} weight(s), so weights must have shape ({circuit.num_weights},); "
            f"got {tuple(weights.shape)}."
        )
    if inputs.device != weights.device:
        raise SimulationError(f"inputs are on {inputs.device}, weights on {weights.device}; move one of them.")
    for name, angles in (("inputs", inputs), ("weights", weights)):
        if not angles.is_floating_point():
            raise SimulationError(
                f"{name} must be real floating-point angles; got {angles.dtype}. Convert with .float()."
            )


def check_angles(circuit: Circuit, inputs: Tensor, weights: Tensor) -> None:
    """`check_shapes`, and that every angle is finite. Raises: SimulationError."""
    check_shapes(circuit, inputs, weights)
    for name, angles in (("inputs", inputs), ("weights", weights)):
        bad = (~torch.isfinite(angles)).sum().item()
        if bad:
            raise SimulationError(f"{name} must be finite angles; got {bad} of {angles.numel()} NaN or infinite.")

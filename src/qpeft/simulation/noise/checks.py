"""What must hold for inputs and weights before a circuit is simulated."""

from __future__ import annotations

import torch
from torch import Tensor

from qpeft.circuits import Circuit
from qpeft.errors import SimulationError


def check_angles(circuit: Circuit, inputs: Tensor, weights: Tensor) -> None:
    """Raises: SimulationError if shape, device or values of the angles do not fit."""
    if inputs.ndim < 1 or inputs.shape[-1] != circuit.num_inputs:
        raise SimulationError(
            f"The circuit reads {circuit.num_inputs} input angle(s), so inputs must end in an axis of that size; "
            f"got shape {tuple(inputs.shape)}."
        )
    if weights.shape != (circuit.num_weights,):
        raise SimulationError(f"The circuit has {circuit.num_weights} weight(s); got shape {tuple(weights.shape)}.")
    if inputs.device != weights.device:
        raise SimulationError(f"inputs are on {inputs.device}, weights on {weights.device}; move one of them.")
    for name, angles in (("inputs", inputs), ("weights", weights)):
        bad = (~torch.isfinite(angles)).sum().item()
        if bad:
            raise SimulationError(f"{name} must be finite angles; got {bad} of {angles.numel()} NaN or infinite.")

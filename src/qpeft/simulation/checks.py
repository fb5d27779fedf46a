"""What must hold for inputs and weights before a circuit is evaluated, here or on a device."""

from __future__ import annotations

import operator

import torch
from torch import Tensor

from qpeft.circuits import Circuit
from qpeft.errors import ShotsError, SimulationError

NOT_MAPPED = (
    "Samples, and values from devices, are not mapped by torch.func (vmap, jacrev). Pass rows as leading axes of "
    "inputs: one call evaluates all of them."
)


def whole_number(value: object) -> int | None:
    """An integer of whatever type, such as numpy's, as an int; None for true, for text and for fractions."""
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):  # in turn: anything; an array or a tensor of several numbers
        return None


def check_shots(shots: object, who: str, remedy: str, *, at_least: int = 1) -> int:
    """The number of shots, as an int.

    Args:
        shots: what was given. Not None, which means exact values and is for the caller to know.
        who: takes them, for the error's first words: "local samples".
        remedy: the error's last sentence.
        at_least: the fewest that do.

    Raises: ShotsError if it is no whole number of at least so many.
    """
    number = whole_number(shots)
    if number is None:
        raise ShotsError(f"{who}, so shots must be a whole number; got {shots!r}. {remedy}")
    if number < at_least:
        raise ShotsError(f"{who}, so shots must be at least {at_least}; got {number}. {remedy}")
    return number


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
    check_kinds(inputs=inputs, weights=weights)


def check_kinds(**tensors: Tensor) -> None:
    """Raises: SimulationError, by these names, unless all are real floating-point numbers and on one device."""
    (first, one), (second, other) = tensors.items()
    if one.device != other.device:
        raise SimulationError(f"{first} are on {one.device}, {second} on {other.device}; move one of them.")
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise SimulationError(
                f"{name} must be real floating-point numbers; got {tensor.dtype}. Convert with .float()."
            )


def check_angles(circuit: Circuit, inputs: Tensor, weights: Tensor) -> None:
    """`check_shapes`, and that every angle is finite. Raises: SimulationError."""
    check_shapes(circuit, inputs, weights)
    for name, angles in (("inputs", inputs), ("weights", weights)):
        try:
            bad = (~torch.isfinite(angles)).sum().item()
        except RuntimeError as error:
            if "vmap" in str(error):
                raise SimulationError(NOT_MAPPED) from error
            raise
        if bad:
            raise SimulationError(f"{name} must be finite angles; got {bad} of {angles.numel()} NaN or infinite.")

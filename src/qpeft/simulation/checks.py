"""What must hold for inputs and weights before a circuit is evaluated, here or on a device."""

from __future__ import annotations

import operator
from functools import lru_cache

import psutil  # type: ignore[import-untyped]
import torch
from torch import Tensor

from qpeft.circuits import Circuit
from qpeft.errors import ShotsError, SimulationError
from qpeft.simulation.compiler import compile_plan
from qpeft.simulation.plan import PhaseLayer

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
    """Args:
        circuit: that is evaluated.
        inputs: (..., num_inputs), radians.
        weights: (num_weights,), radians.

    Raises: SimulationError unless inputs (..., num_inputs) and weights (num_weights,) are real, on one device.
    """
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
    """`check_shapes`, and that every angle is finite.

    Args:
        circuit: that is evaluated.
        inputs: (..., num_inputs), radians.
        weights: (num_weights,), radians.

    Raises: SimulationError.
    """
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


# Whether a circuit fits into memory: said before anything is allocated, with the numbers.


ALWAYS_FITS = 18
"""Up to this many qubits nothing is checked: a block of tokens and its tables take a few hundred megabytes at most."""
WORKING_COPIES = 16
"""State, costate and temporaries of a backward pass, in real numbers per basis state."""


@lru_cache(maxsize=64)
def bytes_needed(circuit: Circuit, itemsize: int) -> int:
    """Memory of one block of tokens and of the tables of the torch path, at its least: one token per block."""
    plan = compile_plan(circuit)
    # Per layer its state, real and imaginary, and the sign vectors of its phases.
    tables = sum(2 + (len(layer.terms) if isinstance(layer, PhaseLayer) else 4) for layer in plan.layers)
    tables += len(plan.terms)
    return (WORKING_COPIES + tables) * itemsize << circuit.num_qubits


def check_memory(circuit: Circuit, device: torch.device, dtype: torch.dtype) -> None:
    """Args:
        circuit: that is evaluated.
        device: where its states will lie.
        dtype: of their real and imaginary parts.

    Raises: SimulationError if the state of one token does not fit into what `device` has free.
    """
    if circuit.num_qubits <= ALWAYS_FITS:
        return
    needed, free = bytes_needed(circuit, max(4, dtype.itemsize)), bytes_free(device)
    if needed > free:
        largest = circuit.num_qubits - (needed // max(1, free)).bit_length()
        raise SimulationError(
            f"Simulating {circuit.num_qubits} qubits needs {needed / 2**30:,.1f} GiB; {device} has "
            f"{free / 2**30:,.1f} GiB free, enough for about {largest} qubits. Use fewer qubits, or several "
            "circuits side by side."
        )


def bytes_free(device: torch.device) -> int:
    """Free memory of the device; of the machine for the CPU and for devices that do not tell."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)

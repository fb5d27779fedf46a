"""Circuits with numbers for angles, as a quantum computer runs them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from qpeft.circuits.circuit import Circuit, Input, Weight
from qpeft.errors import CircuitError


def bind(circuit: Circuit, inputs: Sequence[float], weights: Sequence[float]) -> Circuit:
    """`circuit` with every angle a number: of one evaluation.

    Args:
        circuit: what to evaluate.
        inputs: num_inputs angles, radians.
        weights: num_weights angles, radians.

    Raises: CircuitError if there are too few or too many angles.
    """
    for name, given, needed in (("input", inputs, circuit.num_inputs), ("weight", weights, circuit.num_weights)):
        if len(given) != needed:
            raise CircuitError(f"The circuit has {needed} {name} angle(s); got {len(given)}.")
    operations = []
    for operation in circuit.operations:
        match operation.angle:
            case Input(index):
                operation = replace(operation, angle=float(inputs[index]))  # noqa: PLW2901
            case Weight(index):
                operation = replace(operation, angle=float(weights[index]))  # noqa: PLW2901
        operations.append(operation)
    return replace(circuit, operations=tuple(operations))


def unbind(circuit: Circuit) -> tuple[Circuit, list[float]]:
    """The inverse of `bind`, for machines that prepare a circuit once and run it at many angles.

    Returns:
        The circuit with an input in place of each number, in the order of its gates, and the numbers, radians.
        Observables stay, and so do inputs and weights; numbers become the inputs after the last.
    """
    numbers = itertools.count(circuit.num_inputs)
    operations, angles = [], []
    for operation in circuit.operations:
        if isinstance(operation.angle, (int, float)):
            angles.append(float(operation.angle))
            operation = replace(operation, angle=Input(next(numbers)))  # noqa: PLW2901
        operations.append(operation)
    return replace(circuit, operations=tuple(operations)), angles

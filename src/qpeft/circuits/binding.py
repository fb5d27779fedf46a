"""Circuits with numbers for angles, as a quantum computer runs them."""

from __future__ import annotations

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

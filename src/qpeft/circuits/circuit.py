"""A circuit as data: operations in time order, angles by where they come from, observables as Pauli strings."""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Real
from typing import Any, TypeAlias

from qpeft.circuits.gates import GATES, Gate
from qpeft.errors import CircuitError


@dataclass(frozen=True)
class Input:
    """An angle fed in with the data: column `index` of the inputs, radians."""

    index: int


@dataclass(frozen=True)
class Weight:
    """A trained angle: entry `index` of the weights, radians."""

    index: int


Angle: TypeAlias = Input | Weight | float


@dataclass(frozen=True)
class Operation:
    """One gate on named qubits. `angle` is None exactly for gates without a parameter.

    Raises: CircuitError if the gate is unknown, or its qubits or angle do not fit it.
    """

    gate_name: str
    qubits: tuple[int, ...]
    angle: Angle | None = None

    def __post_init__(self) -> None:
        # A list is taken too, but only a tuple can be hashed.
        object.__setattr__(self, "qubits", tuple(self.qubits))
        if self.gate_name not in GATES:
            # Names are in capitals here, and in small letters in most other packages.
            near = difflib.get_close_matches(str(self.gate_name).upper(), GATES, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known gates: {', '.join(GATES)}."
            raise CircuitError(f"There is no gate {self.gate_name!r}. {hint}")
        if len(self.qubits) != self.gate.num_qubits or len(set(self.qubits)) != len(self.qubits):
            raise CircuitError(
                f"{self.gate_name} acts on {self.gate.num_qubits} different qubit(s); got qubits {self.qubits}."
            )
        if self.gate.is_parametrised and self.angle is None:
            raise CircuitError(f"{self.gate_name} needs an angle: Input(index), Weight(index) or a number in radians.")
        if not self.gate.is_parametrised and self.angle is not None:
            raise CircuitError(f"{self.gate_name} takes no angle; got {self.angle}.")
        if isinstance(self.angle, (Input, Weight)):
            if self.angle.index < 0:
                raise CircuitError(f"{self.angle} points before the first entry; indices start at 0.")
        elif self.angle is not None:
            # Not a tensor, whose gradient would be lost and whose hash is another for each of two equal ones.
            given: Any = self.angle
            is_number = isinstance(given, Real) and not isinstance(given, bool)
            if not is_number:
                raise CircuitError(
                    f"{self.gate_name} needs an angle: Input(index), Weight(index) or a number in radians; got "
                    f"{given!r}."
                )
            if not math.isfinite(given):
                raise CircuitError(f"{self.gate_name} needs a finite angle; got {given}.")
            if not isinstance(given, (int, float)):  # numpy's float32, say, or a fraction
                object.__setattr__(self, "angle", float(given))

    @property
    def gate(self) -> Gate:
        return GATES[self.gate_name]


@dataclass(frozen=True)
class Circuit:
    """A parametrised circuit on qubits that start in |0>, and what is measured at its end.

    Attributes:
        num_qubits: at least 1.
        operations: in the order in which they act.
        observables: Pauli strings over I, X, Y, Z, leftmost letter on qubit 0; by default Z of every qubit.

    Equal circuits compare and hash equal, so they can key a cache.
    Raises: CircuitError if a qubit is out of range or an observable is no Pauli string of the right length.
    """

    num_qubits: int
    operations: tuple[Operation, ...]
    observables: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.num_qubits < 1:
            raise CircuitError(f"A circuit needs at least 1 qubit; got {self.num_qubits}.")
        object.__setattr__(self, "operations", tuple(self.operations))
        z_of_each = ("I" * qubit + "Z" + "I" * (self.num_qubits - qubit - 1) for qubit in range(self.num_qubits))
        observables = tuple(self.observables) or tuple(z_of_each)
        object.__setattr__(self, "observables", observables)
        for operation in self.operations:
            if not all(0 <= qubit < self.num_qubits for qubit in operation.qubits):
                raise CircuitError(f"{operation} leaves the circuit, whose qubits are 0 to {self.num_qubits - 1}.")
        for observable in observables:
            if len(observable) != self.num_qubits or not set(observable) <= set("IXYZ"):
                raise CircuitError(
                    f"An observable on {self.num_qubits} qubit(s) is a string of that many letters I, X, Y, Z; "
                    f"got {observable!r}."
                )

    def __hash__(self) -> int:
        return self._hash

    def __getstate__(self) -> dict[str, object]:
        # Without what is cached: hashes of text are others in the process that reads a pickle.
        return {name: self.__dict__[name] for name in ("num_qubits", "operations", "observables")}

    @cached_property
    def _hash(self) -> int:
        # Caches are asked once per layer and step, so the walk over all operations is made once.
        return hash((self.num_qubits, self.operations, self.observables))

    @cached_property
    def num_inputs(self) -> int:
        """Angles that one evaluation reads from its input."""
        return 1 + max((op.angle.index for op in self.operations if isinstance(op.angle, Input)), default=-1)

    @cached_property
    def num_weights(self) -> int:
        """Trained angles."""
        return 1 + max((op.angle.index for op in self.operations if isinstance(op.angle, Weight)), default=-1)

    @property
    def num_observables(self) -> int:
        return len(self.observables)


def bind(circuit: Circuit, inputs: Sequence[float], weights: Sequence[float]) -> Circuit:
    """Return `circuit` with every angle a number, as a quantum computer runs one evaluation.

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
    """Undo `bind`, for machines that prepare a circuit once and run it at many angles.

    Returns:
        The circuit with an input in place of each number, in the order of its gates, and the numbers, radians.
        Observables stay, and so do inputs and weights; numbers become the inputs after the last.
    """
    numbers = itertools.count(circuit.num_inputs)
    operations, angles = [], []
    for operation in circuit.operations:
        # Equal numbers get inputs of their own: the next circuit may have them unequal.
        if isinstance(operation.angle, (int, float)):
            angles.append(float(operation.angle))
            operation = replace(operation, angle=Input(next(numbers)))  # noqa: PLW2901
        operations.append(operation)
    return replace(circuit, operations=tuple(operations)), angles

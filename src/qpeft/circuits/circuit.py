"""A circuit as data: operations in time order, angles by where they come from, observables as Pauli strings."""

from __future__ import annotations

import difflib
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from io import BytesIO
from numbers import Real
from pathlib import Path
from typing import Any, TypeAlias

from qpeft.circuits.gates import GATES, Gate
from qpeft.errors import CircuitError

MAX_STORED_QUBITS, MAX_STORED_OPERATIONS, MAX_STORED_OBSERVABLES = 24, 10_000, 4_096
"""Limits of a circuit that is read from data: files of adapters come from anywhere."""


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

    def to_dict(self) -> dict[str, Any]:
        """Return the circuit as plain data for JSON: a gate is [name, qubits] or [name, qubits, angle].

        An angle is a number, or "x3" for column 3 of the inputs, or "w3" for entry 3 of the weights.
        """
        operations: list[list[Any]] = []
        for operation in self.operations:
            written: list[Any] = [operation.gate_name, list(operation.qubits)]
            match operation.angle:
                case Input(index):
                    written.append(f"x{index}")
                case Weight(index):
                    written.append(f"w{index}")
                case float() | int() as number:
                    written.append(number)
            operations.append(written)
        return {"num_qubits": self.num_qubits, "operations": operations, "observables": list(self.observables)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Circuit:
        """Return the circuit that `to_dict` wrote. The data may come from a stranger: nothing in it is run.

        Raises: CircuitError if something is missing, of another kind, or larger than a circuit here can be.
        """
        if not isinstance(data, Mapping) or set(data) != {"num_qubits", "operations", "observables"}:
            keys = ", ".join(map(str, data)) if isinstance(data, Mapping) else type(data).__name__
            raise CircuitError(f"A stored circuit has num_qubits, operations and observables, no more; got {keys}.")
        num_qubits, written, observables = (data[name] for name in ("num_qubits", "operations", "observables"))
        if type(num_qubits) is not int or not 1 <= num_qubits <= MAX_STORED_QUBITS:
            raise CircuitError(f"A stored circuit has 1 to {MAX_STORED_QUBITS} qubits; got {num_qubits!r:.50}.")
        for name, items, most in (
            ("operations", written, MAX_STORED_OPERATIONS),
            ("observables", observables, MAX_STORED_OBSERVABLES),
        ):
            if not isinstance(items, (list, tuple)) or len(items) > most:
                size = f"{len(items):,}" if isinstance(items, (list, tuple)) else type(items).__name__
                raise CircuitError(f"A stored circuit has a list of at most {most:,} {name}; got {size}.")
        if not all(isinstance(observable, str) for observable in observables):
            raise CircuitError("Observables of a stored circuit are Pauli strings.")
        operations = [_read_operation(number, item) for number, item in enumerate(written)]
        return cls(num_qubits, tuple(operations), tuple(observables))

    @staticmethod
    def from_openqasm(source: str | Path, **options: Any) -> Circuit:
        """Return a program in OpenQASM 2 or 3, a file or its text; `options` as `exchange.from_openqasm`."""
        if isinstance(source, Path) or ("\n" not in source and source.endswith((".qasm", ".qasm3"))):
            try:
                source = Path(source).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise CircuitError(f"{source} cannot be read as OpenQASM: {error}.") from error
        made: Circuit = _exchange().from_openqasm(source, **options)
        return made

    @staticmethod
    def from_qiskit(circuit: Any, **options: Any) -> Circuit:
        """Return a QuantumCircuit of Qiskit's; `options` as `exchange.from_qiskit`."""
        made: Circuit = _exchange().from_qiskit(circuit, **options)
        return made

    @staticmethod
    def from_pennylane(source: Any, *args: Any, **options: Any) -> Circuit:
        """Return a QNode, a function or a tape of PennyLane's; `args` and `options` as `exchange.from_pennylane`."""
        made: Circuit = _exchange().from_pennylane(source, *args, **options)
        return made

    def to_openqasm(self) -> str:
        """Return the circuit in OpenQASM 3; see `exchange.to_openqasm`."""
        program: str = _exchange().to_openqasm(self)
        return program

    def to_qiskit(self) -> Any:
        """Return the circuit as Qiskit's QuantumCircuit; see `exchange.to_qiskit`."""
        return _exchange().to_qiskit(self)

    def to_pennylane(self) -> Any:
        """Return the circuit as a quantum function of PennyLane's; see `exchange.to_pennylane`."""
        return _exchange().to_pennylane(self)

    def to_originir(self, inputs: Sequence[float] = (), weights: Sequence[float] = ()) -> str:
        """Return OriginIR, which has numbers for angles, as Origin's cloud reads it.

        Args:
            inputs: num_inputs angles, radians.
            weights: num_weights angles, radians.
        """
        program: str = import_module("qpeft.circuits.origin_ir").to_origin_ir(bind(self, inputs, weights))
        return program

    def draw(self, output: str = "text") -> Any:
        """Return a drawing: 'text', or 'mpl' for a figure of matplotlib. Inputs are x0, x1, ..., weights w0, w1, ...

        Raises: CircuitError for another kind of output.
        """
        drawing = import_module("qpeft.circuits.drawing")
        if output == "text":
            return drawing.circuit_text(self)
        if output != "mpl":
            raise CircuitError(f"draw() makes 'text' or 'mpl'; got {output!r}.")
        from matplotlib.figure import Figure  # noqa: PLC0415  (takes a second to import)

        width = 1 + max(drawing.columns(self.operations), default=0)
        # No pyplot: a figure of its own is shown by notebooks, and by nothing that was not asked to.
        figure = Figure(figsize=(0.45 * width + 1, 0.45 * self.num_qubits + 0.5), layout="constrained")
        drawing.draw_circuit(self, figure.add_subplot())
        return figure

    def _repr_png_(self) -> bytes:
        """Return the drawing that notebooks show by themselves."""
        picture = BytesIO()
        self.draw("mpl").savefig(picture, format="png", dpi=110)
        return picture.getvalue()


def _read_operation(number: int, item: Any) -> Operation:
    """Return a gate as `Circuit.to_dict` wrote it. Raises: CircuitError, with its number, if it cannot be read."""
    try:
        gate_name, qubits, *angles = item
        if len(angles) > 1 or not all(type(qubit) is int for qubit in qubits):
            raise CircuitError("a gate is [name, [qubits]] or [name, [qubits], angle].")
        angle = angles[0] if angles else None
        if isinstance(angle, str):
            # Few digits: an index beyond all gates would make inputs or weights that nothing reads.
            found = re.fullmatch(r"([xw])(\d{1,4})", angle)
            if found is None:
                raise CircuitError("an angle is a number, x and a number, or w and a number.")
            angle = (Input if found[1] == "x" else Weight)(int(found[2]))
        return Operation(gate_name, tuple(qubits), angle)
    except (TypeError, ValueError, CircuitError) as error:
        raise CircuitError(f"Gate {number} of a stored circuit cannot be read, {item!r:.80}: {error}") from error


def _exchange() -> Any:
    # Named, not imported: that file makes circuits, and so imports this one.
    return import_module("qpeft.circuits.exchange")


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

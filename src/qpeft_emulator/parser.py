"""OriginIR read back into a circuit and its measurements.

Read is what pyqpanda3 prints for gates that our table has, DAGGER blocks of them, and CONTROL blocks with one control.
Everything else is an error that names the line. Global phases are kept, since a CONTROL block makes them matter.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from qpeft.circuits import Circuit, Operation
from qpeft.circuits.decomposition import bound_angle
from qpeft.errors import CircuitError

# Angles are taken whole, to the last bracket, and split later: an expression in them is to be named in the error.
_STATEMENT = re.compile(
    r"(?P<name>[A-Za-z]\w*)\s*(?P<operands>q\[\d+\](?:\s*,\s*q\[\d+\])*)\s*(?:,\s*\((?P<angles>.*)\))?"
)
_SIZE = re.compile(r"(QINIT|CREG)\s+(\d+)")
_MEASURE = re.compile(r"MEASURE\s+q\[(\d+)\]\s*,\s*c\[(\d+)\]")
_QUBIT = re.compile(r"q\[(\d+)\]")
_CONTROL = re.compile(r"CONTROL\s+q\[(\d+)\]")
MAX_SIZE = 256
"""Qubits and classical bits that a program may declare; more is no program for a chip but an attack on memory."""

_SAME_NAME = ("H", "X", "Y", "Z", "S", "T", "CNOT", "CZ", "SWAP", "RX", "RY", "RZ", "RXX", "RYY", "RZZ", "CRX", "CRY")
_NAMES = {
    **{name: name for name in _SAME_NAME},
    "CRZ": "CRZ",
    "P": "PHASE",
    "U1": "PHASE",
    "CR": "CPHASE",
    "CP": "CPHASE",
}
# X1, Y1, Z1: turns by pi/2 about these axes, without an angle in the text.
_QUARTER_TURNS = {"X1": "RX", "Y1": "RY", "Z1": "RZ"}
_CONTROLLED = {"X": "CNOT", "Y": "CY", "Z": "CZ", "RX": "CRX", "RY": "CRY", "RZ": "CRZ", "PHASE": "CPHASE"}
_INVERSES = {"S": "SDG", "SDG": "S", "T": "TDG", "TDG": "T"}
# U3(theta, phi, lam) = PHASE(phi) RY(theta) PHASE(lam) as matrices, so PHASE(lam) comes first in time. RPhi turns about
# the axis at angle `axis` in the XY plane: that axis is turned onto Y, and back.
_TURNED: dict[str, tuple[int, Callable[..., tuple[float, float, float]]]] = {
    "RPhi": (2, lambda angle, axis: (math.pi / 2 - axis, angle, axis - math.pi / 2)),
    "U2": (2, lambda phi, lam: (lam, math.pi / 2, phi)),
    "U3": (3, lambda theta, phi, lam: (lam, theta, phi)),
}
"""Number of angles, and from them those of PHASE, RY, PHASE in time order: equal including the global phase."""


@dataclass(frozen=True)
class ParsedProgram:
    """What one OriginIR text says.

    Attributes:
        circuit: on as many qubits as QINIT says.
        num_bits: classical bits, as CREG says.
        measurements: pairs of a qubit and the classical bit that it is measured into, each at most once.
    """

    circuit: Circuit
    num_bits: int
    measurements: tuple[tuple[int, int], ...]

    @property
    def used_qubits(self) -> list[int]:
        """Qubits with a gate or a measurement, ascending."""
        in_gates = {qubit for operation in self.circuit.operations for qubit in operation.qubits}
        return sorted(in_gates | {qubit for qubit, _ in self.measurements})


def parse_origin_ir(text: str) -> ParsedProgram:
    """Return the program that a text describes.

    Raises: CircuitError with the number of the line (from 1) that is unknown, out of range or out of order.
    """
    reader = _Reader()
    for number, line in enumerate(text.splitlines(), start=1):
        statement = line.split("//")[0].strip()
        try:
            if statement:
                reader.read(statement)
        except CircuitError as error:
            raise CircuitError(f"Line {number} of the program, {line.strip()[:80]!r}: {error}") from error
    return reader.program()


@dataclass
class _Block:
    """Operations collected in an open DAGGER or CONTROL block; the outermost block is the program."""

    kind: str = ""
    control: int = -1
    operations: list[Operation] = field(default_factory=list)

    def closed(self) -> list[Operation]:
        """Return the operations that the whole block stands for."""
        closed: list[Operation] = []
        # (A B)^-1 = B^-1 A^-1: a DAGGER block runs backwards. A CONTROL block keeps its order.
        for operation in reversed(self.operations) if self.kind == "DAGGER" else self.operations:
            name, qubits, angle = operation.gate_name, operation.qubits, operation.angle
            if self.kind == "DAGGER":
                turned = bound_angle(operation)
                # Gates without an angle are their own inverse, except for the quarter and eighth turns about Z.
                name, angle = (_INVERSES.get(name, name), None) if turned is None else (name, -turned)
            elif name not in _CONTROLLED:
                raise CircuitError(f"the emulator has no controlled {name}; it has {', '.join(_CONTROLLED)}.")
            else:
                name, qubits = _CONTROLLED[name], (self.control, *qubits)
            closed.append(Operation(name, qubits, angle))
        return closed


class _Reader:
    """Takes statements one by one."""

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}
        self._blocks = [_Block()]
        self._measurements: list[tuple[int, int]] = []

    def read(self, statement: str) -> None:
        """Take the next statement. Raises: CircuitError that says what is wrong with it."""
        if match := _SIZE.fullmatch(statement):
            self._declare(match[1], int(match[2]))
        # Everything after this line may take for granted that both sizes are known.
        elif set(self._sizes) != {"QINIT", "CREG"}:
            raise CircuitError("a program starts with QINIT and CREG.")
        elif match := _MEASURE.fullmatch(statement):
            qubit, bit = int(match[1]), int(match[2])
            if len(self._blocks) > 1:
                raise CircuitError("a measurement cannot stand in a block.")
            if bit >= self._sizes["CREG"]:
                raise CircuitError(f"the program has {self._sizes['CREG']} classical bit(s), from 0.")
            if any(qubit == known or bit == used for known, used in self._measurements):
                raise CircuitError("every qubit is measured at most once, and into a bit of its own.")
            self._measurements.append((self._in_range(qubit), bit))
        elif statement == "DAGGER":
            self._blocks.append(_Block("DAGGER"))
        elif match := _CONTROL.fullmatch(statement):
            self._blocks.append(_Block("CONTROL", self._in_range(int(match[1]))))
        elif statement in ("ENDDAGGER", "ENDCONTROL"):
            kind = statement.removeprefix("END")
            if self._blocks[-1].kind != kind:
                raise CircuitError(f"no {kind} block is open here.")
            self._blocks[-2].operations += self._blocks.pop().closed()
        else:
            self._gate(statement)

    def program(self) -> ParsedProgram:
        """Return what was read. Raises: CircuitError if it has no beginning, or a block has no end."""
        if set(self._sizes) != {"QINIT", "CREG"}:
            raise CircuitError("The program has no QINIT and CREG.")
        if len(self._blocks) > 1:
            raise CircuitError(f"The program ends inside a {self._blocks[-1].kind} block.")
        circuit = Circuit(self._sizes["QINIT"], tuple(self._blocks[0].operations))
        return ParsedProgram(circuit, self._sizes["CREG"], tuple(self._measurements))

    def _declare(self, kind: str, size: int) -> None:
        if kind in self._sizes or (kind == "QINIT" and self._sizes):
            raise CircuitError("QINIT comes once, then CREG once.")
        if not 1 <= size <= MAX_SIZE:
            raise CircuitError(f"{kind} is from 1 to {MAX_SIZE}.")
        self._sizes[kind] = size

    def _gate(self, statement: str) -> None:
        match = _STATEMENT.fullmatch(statement)
        if match is None:
            raise CircuitError("this is not a statement that the emulator knows.")
        name = match["name"]
        qubits = tuple(self._in_range(int(number)) for number in _QUBIT.findall(match["operands"]))
        # Both do nothing to the state, and the emulator has no schedule that a barrier could hold up.
        if name in ("BARRIER", "I"):
            return
        # Reading in the middle of a circuit would take a collapse, which density.py does not simulate.
        if measured := {qubit for qubit, _ in self._measurements} & set(qubits):
            raise CircuitError(f"qubit {min(measured)} has been measured; measurements come last here.")
        angles: list[float] = []
        for part in [] if match["angles"] is None else match["angles"].split(","):
            try:
                angles.append(float(part))
            except ValueError as error:
                raise CircuitError(f"{part.strip()!r} is not a number.") from error
            if not math.isfinite(angles[-1]):  # float() reads "nan" and "inf" too
                raise CircuitError(f"{part.strip()!r} is not a finite angle.")
        operations = self._blocks[-1].operations
        if name in _QUARTER_TURNS and not angles:
            operations.append(Operation(_QUARTER_TURNS[name], qubits, math.pi / 2))
        elif name in _TURNED and len(angles) == _TURNED[name][0]:
            steps = zip(("PHASE", "RY", "PHASE"), _TURNED[name][1](*angles), strict=True)
            operations += [Operation(gate, qubits, angle) for gate, angle in steps]
        elif name in _NAMES and len(angles) <= 1:
            operations.append(Operation(_NAMES[name], qubits, angles[0] if angles else None))
        else:
            raise CircuitError(f"the emulator has no gate {name} with {len(angles)} angle(s).")

    def _in_range(self, qubit: int) -> int:
        if qubit >= self._sizes["QINIT"]:
            raise CircuitError(f"the program has {self._sizes['QINIT']} qubit(s), from 0.")
        return qubit

"""A circuit with inputs, rewritten once for all its rows in the gates of a superconducting chip."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from qpeft.circuits.binding import bind
from qpeft.circuits.circuit import Circuit, Input, Operation
from qpeft.circuits.native import ControlledZ, Turn, to_native

RealArray = npt.NDArray[np.float64]

FREE_GATES = frozenset({"RZ"})
"""Of RZ, RY and CZ those that take no time and make no error: RZ is a change of the phase of later pulses."""


def native_circuit(
    circuit: Circuit, inputs: Sequence[Sequence[float]], weights: Sequence[float]
) -> tuple[Circuit, RealArray]:
    """One circuit of RZ, RY and CZ for all rows of inputs, and the angles of every row.

    Each RY is a pulse, each RZ is free. Between two CZ a qubit has at most one pulse, with one RZ before it: what is
    left of a rotation about Z after a pulse commutes with CZ and joins the next one. An RZ that no pulse follows is
    left out unless X or Y of its qubit is measured, as is one before the first pulse, where the qubit is still |0>.

    Args:
        inputs: one row per evaluation, at least one; radians.
        weights: shared by all rows; radians.

    Returns:
        A circuit without weights, with the observables of `circuit`; its inputs, (rows, num_inputs), radians. A pulse
        that some rows do not need, because they turn by exactly 0 there, stays in the circuit; one that no row needs
        does not.

    Raises: CircuitError if there are too few or too many angles.
    """
    rows = [to_native(bind(circuit, row, weights).operations, optimise=True) for row in inputs]
    batch = _Batch(len(rows))
    for gates in zip(*rows, strict=True):
        first = gates[0]
        if isinstance(first, ControlledZ):
            batch.flip(first.qubits)
        else:
            batch.turn(first.qubit, [gate for gate in gates if isinstance(gate, Turn)])
    for qubit in range(circuit.num_qubits):
        if any(observable[qubit] in "XY" for observable in circuit.observables):
            batch.end(qubit)
    return Circuit(circuit.num_qubits, tuple(batch.operations), circuit.observables), batch.angles()


class _Batch:
    """Collects gates and their columns of angles; `_phases` are rotations about Z that wait for the next pulse."""

    def __init__(self, num_rows: int) -> None:
        self.operations: list[Operation] = []
        self._columns: list[RealArray] = []
        self._phases: dict[int, RealArray] = {}
        self._num_rows = num_rows

    def flip(self, qubits: tuple[int, int]) -> None:
        self.operations.append(Operation("CZ", qubits))

    def turn(self, qubit: int, turns: Sequence[Turn]) -> None:
        before, angles, after = np.array([(turn.before, turn.angle, turn.after) for turn in turns]).T
        if angles.any():
            if qubit in self._phases:
                self._rotate("RZ", qubit, self._phases[qubit] + before)
            self._rotate("RY", qubit, angles)
            self._phases[qubit] = after
        elif qubit in self._phases:
            self._phases[qubit] = self._phases[qubit] + before + after

    def end(self, qubit: int) -> None:
        if qubit in self._phases:
            self._rotate("RZ", qubit, self._phases[qubit])

    def angles(self) -> RealArray:
        return np.stack(self._columns, axis=1) if self._columns else np.zeros((self._num_rows, 0))

    def _rotate(self, name: str, qubit: int, angles: RealArray) -> None:
        self.operations.append(Operation(name, (qubit,), Input(len(self._columns))))
        self._columns.append(angles)

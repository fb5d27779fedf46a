"""What a circuit costs, and whether it needs a quantum computer or a simulator at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qpeft.circuits import Circuit, Operation
from qpeft.circuits.circuit import bind
from qpeft.circuits.decomposition import to_controlled_z
from qpeft.simulation import compile_plan, dead_weights


@dataclass(frozen=True)
class Resources:
    """Counts of one circuit.

    Attributes:
        gates, two_qubit_gates: as the circuit is drawn.
        controlled_z: two-qubit gates once all are written with CZ, the gate of common superconducting chips.
        depth: gates one after another on the longest path, as drawn.
        weights: trained angles; `dead_weights` of them have no effect on any value.
        has_classical_form: whether values are short sums of products of sines and cosines, so that simulating it
            exactly needs no state vector and it is no evidence of anything quantum.
    """

    gates: int
    two_qubit_gates: int
    controlled_z: int
    depth: int
    weights: int
    dead_weights: int
    has_classical_form: bool


def resources(circuit: Circuit) -> Resources:
    """Count. Raises: CircuitError if a gate on two qubits cannot be written with CZ."""
    bound = bind(circuit, [0.0] * circuit.num_inputs, [0.0] * circuit.num_weights)
    return Resources(
        gates=len(circuit.operations),
        two_qubit_gates=_on_two_qubits(circuit.operations),
        controlled_z=_on_two_qubits(tuple(to_controlled_z(bound.operations))),
        depth=longest_path(circuit.operations),
        weights=circuit.num_weights,
        dead_weights=len(dead_weights(circuit)),
        has_classical_form=compile_plan(circuit).is_closed_form,
    )


def longest_path(operations: Sequence[Operation]) -> int:
    """Time steps, where each gate starts as soon as its qubits are free."""
    ends: dict[int, int] = {}
    for operation in operations:
        end = 1 + max(ends.get(qubit, 0) for qubit in operation.qubits)
        ends |= dict.fromkeys(operation.qubits, end)
    return max(ends.values(), default=0)


def _on_two_qubits(operations: Sequence[Operation]) -> int:
    return sum(len(operation.qubits) == 2 for operation in operations)

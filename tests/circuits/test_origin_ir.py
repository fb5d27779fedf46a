"""OriginIR: what is written means the circuit; dense matrices of both are compared."""

import math

import dense_oracle as dense
import numpy as np
import pytest

from qpeft.circuits import GATES, Circuit, Operation, Weight, ansatz, bind
from qpeft.circuits.decomposition import to_controlled_z
from qpeft.circuits.origin_ir import to_origin_ir
from qpeft.errors import CircuitError
from qpeft_emulator import parse_origin_ir

ANGLES = (0.3, -2.5, 4.0, math.pi, 0.0)


def unitary(operations, num_qubits):
    """Dense matrix of bound operations, qubit 0 most significant."""
    whole = np.eye(2**num_qubits).reshape([2] * num_qubits + [-1])
    for operation in operations:
        name, angle = operation.gate_name, operation.angle
        gate = dense.FIXED[name] if angle is None else dense.PARAMETRISED[name](angle)
        size = len(operation.qubits)
        moved = np.moveaxis(whole, operation.qubits, range(size))
        moved = (gate @ moved.reshape(2**size, -1)).reshape(moved.shape)
        whole = np.moveaxis(moved, range(size), operation.qubits)
    return whole.reshape(2**num_qubits, -1)


def assert_equal_up_to_phase(found, expected):
    overlap = np.trace(expected.conj().T @ found) / len(expected)
    assert abs(abs(overlap) - 1) < 1e-12


def every_operation(qubits):
    for name, gate in GATES.items():
        for angle in ANGLES if gate.is_parametrised else (None,):
            yield pytest.param(Operation(name, qubits[: gate.num_qubits], angle), id=f"{name} {angle}")


@pytest.mark.parametrize("operation", list(every_operation((2, 0))))
def test_every_gate_survives_the_round_trip(operation):
    circuit = Circuit(3, (operation,))
    read = parse_origin_ir(to_origin_ir(circuit))
    assert read.measurements == ((0, 0), (1, 1), (2, 2))
    assert_equal_up_to_phase(unitary(read.circuit.operations, 3), unitary([operation], 3))


@pytest.mark.parametrize("operation", list(every_operation((1, 0))))
def test_every_gate_comes_apart_into_cz_and_gates_on_one_qubit(operation):
    parts = list(to_controlled_z([operation]))
    assert all(len(part.qubits) == 1 or part.gate_name == "CZ" for part in parts)
    assert_equal_up_to_phase(unitary(parts, 2), unitary([operation], 2))


@pytest.mark.parametrize("family", ansatz.ANSATZE)
def test_a_whole_ansatz_survives_on_other_qubits(family):
    circuit = ansatz.ANSATZE[family](3)
    numbers = np.random.default_rng(5).uniform(-7, 7, 100)
    bound = bind(circuit, numbers[: circuit.num_inputs], numbers[50 : 50 + circuit.num_weights])
    chip_qubits = [4, 1, 3]
    read = parse_origin_ir(to_origin_ir(bound, chip_qubits))
    assert read.circuit.num_qubits == 5
    assert read.measurements == ((4, 0), (1, 1), (3, 2))
    back = {chip: own for own, chip in enumerate(chip_qubits)}
    moved = [Operation(op.gate_name, tuple(back[q] for q in op.qubits), op.angle) for op in read.circuit.operations]
    assert_equal_up_to_phase(unitary(moved, 3), unitary(bound.operations, 3))


def test_angles_keep_every_digit():
    angle = 0.1 + 0.2 * math.pi * 1e-5
    assert (
        parse_origin_ir(to_origin_ir(Circuit(1, (Operation("RY", (0,), angle),)))).circuit.operations[0].angle == angle
    )


def test_the_text_is_what_the_vendor_prints():
    circuit = Circuit(2, (Operation("SDG", (0,)), Operation("CPHASE", (0, 1), 0.5)))
    lines = ["QINIT 2", "CREG 2", "DAGGER", "S q[0]", "ENDDAGGER", "CR q[0],q[1],(0.5)"]
    assert to_origin_ir(circuit).splitlines() == [*lines, "MEASURE q[0],c[0]", "MEASURE q[1],c[1]"]


def test_unbound_angles_are_refused():
    for name, qubits in (("RY", (0,)), ("CRZ", (0, 1))):
        with pytest.raises(CircuitError, match="bind inputs and weights first"):
            to_origin_ir(Circuit(2, (Operation(name, qubits, Weight(0)),)))


@pytest.mark.parametrize("qubits", [[0], [0, 0], [0, -1], [0, 1, 2]])
def test_a_wrong_choice_of_chip_qubits_is_refused(qubits):
    with pytest.raises(CircuitError, match="2 different qubit"):
        to_origin_ir(Circuit(2, ()), qubits)

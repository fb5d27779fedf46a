"""Ready-made circuits are the operations that their definitions list, weights in the order of their gates."""

import pytest

from qpeft.circuits import Circuit, Input, Operation, Weight, ansatz
from qpeft.errors import CircuitError


def listed(text):
    """Operations from 'RY 0 x0; CRZ 0 1 w0': gate, qubits, then input or weight."""
    operations = []
    for entry in text.split(";"):
        name, *rest = entry.split()
        angle = None
        if rest[-1][0] in "xw":
            source = rest.pop()
            angle = (Input if source[0] == "x" else Weight)(int(source[1:]))
        operations.append(Operation(name, tuple(int(qubit) for qubit in rest), angle))
    return tuple(operations)


DEFINITIONS = {
    ("ring_crz", 3, 1): (
        "RY 0 x0; RY 1 x1; RY 2 x2; CRZ 0 1 w0; CRZ 1 2 w1; CRZ 2 0 w2; RY 0 w3; RY 1 w4; RY 2 w5;"
        "CRZ 0 2 w6; CRZ 1 0 w7; CRZ 2 1 w8; RY 0 w9; RY 1 w10; RY 2 w11"
    ),
    ("ring_crz", 1, 1): "RY 0 x0; RY 0 w0; RY 0 w1",
    ("ring_crz", 2, 1): (
        "RY 0 x0; RY 1 x1; CRZ 0 1 w0; CRZ 1 0 w1; RY 0 w2; RY 1 w3; CRZ 0 1 w4; CRZ 1 0 w5; RY 0 w6; RY 1 w7"
    ),
    (
        "ring_cz",
        3,
        1,
    ): "RY 0 x0; RY 1 x1; RY 2 x2; RY 0 w0; RY 1 w1; RY 2 w2; CZ 0 1; CZ 1 2; CZ 2 0; RY 0 w3; RY 1 w4; RY 2 w5",
    ("ring_cz", 1, 1): "RY 0 x0; RY 0 w0; RY 0 w1",
    ("ring_cz", 2, 1): "RY 0 x0; RY 1 x1; RY 0 w0; RY 1 w1; CZ 0 1; RY 0 w2; RY 1 w3",
    ("ring_cnot", 1, 1): "RY 0 x0; RY 0 w0; RZ 0 w1; RY 0 w2",
    ("ring_cnot", 2, 1): ("RY 0 x0; RY 1 x1; RY 0 w0; RY 1 w1; RZ 0 w2; RZ 1 w3; CNOT 0 1; CNOT 1 0; RY 0 w4; RY 1 w5"),
    ("ring_cnot", 2, 2): (
        "RY 0 x0; RY 1 x1; RY 0 w0; RY 1 w1; RZ 0 w2; RZ 1 w3; CNOT 0 1; CNOT 1 0;"
        "RY 0 x0; RY 1 x1; RY 0 w4; RY 1 w5; RZ 0 w6; RZ 1 w7; CNOT 0 1; CNOT 1 0; RY 0 w8; RY 1 w9"
    ),
}


@pytest.mark.parametrize(("name", "num_qubits", "depth"), DEFINITIONS)
def test_circuits_are_the_listed_operations(name, num_qubits, depth):
    circuit = ansatz.ANSATZE[name](num_qubits, depth)
    assert circuit == Circuit(num_qubits, listed(DEFINITIONS[name, num_qubits, depth]))


@pytest.mark.parametrize(("name", "per_layer", "at_end"), [("ring_crz", 4, 0), ("ring_cz", 2, 0), ("ring_cnot", 2, 1)])
@pytest.mark.parametrize(("num_qubits", "depth"), [(2, 1), (5, 3), (8, 2)])
def test_weights_are_counted_per_qubit_and_layer(name, per_layer, at_end, num_qubits, depth):
    circuit = ansatz.ANSATZE[name](num_qubits, depth)
    assert circuit.num_weights == num_qubits * (per_layer * depth + at_end)
    assert circuit.num_inputs == circuit.num_observables == num_qubits


@pytest.mark.parametrize("name", ansatz.ANSATZE)
@pytest.mark.parametrize(("reupload", "times"), [(True, 3), (False, 1)])
def test_data_enter_in_every_layer_or_once(name, reupload, times):
    circuit = ansatz.ANSATZE[name](4, 3, reupload=reupload)
    assert sum(isinstance(operation.angle, Input) for operation in circuit.operations) == 4 * times


@pytest.mark.parametrize("name", ansatz.ANSATZE)
@pytest.mark.parametrize(("num_qubits", "depth"), [(0, 1), (3, 0), (-1, 1)])
def test_sizes_below_one_are_refused(name, num_qubits, depth):
    with pytest.raises(CircuitError, match="at least 1; got"):
        ansatz.ANSATZE[name](num_qubits, depth)

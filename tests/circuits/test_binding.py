"""Numbers into circuits, and out again."""

import pytest

from qpeft.circuits import Circuit, Input, Operation, Weight, ansatz, bind, unbind


@pytest.mark.parametrize("build", ansatz.ANSATZE.values(), ids=ansatz.ANSATZE)
def test_what_was_taken_out_can_be_put_back(build):
    circuit = build(3)
    bound = bind(circuit, [0.1, 0.2, 0.3], [0.01 * n for n in range(circuit.num_weights)])
    open_circuit, angles = unbind(bound)
    assert bind(open_circuit, angles, []) == bound


def test_circuits_that_differ_in_angles_alone_have_one_form():
    forms = {unbind(Circuit(2, (Operation("RY", (1,), angle), Operation("H", (0,)))))[0] for angle in (0, 0.5, -2.0)}
    assert forms == {Circuit(2, (Operation("RY", (1,), Input(0)), Operation("H", (0,))))}


def test_open_angles_and_observables_stay():
    operations = (Operation("RX", (0,), Input(1)), Operation("RZ", (0,), 0.25), Operation("RX", (0,), Weight(0)))
    open_circuit, angles = unbind(Circuit(1, operations, ("Y",)))
    assert angles == [0.25]
    assert [operation.angle for operation in open_circuit.operations] == [Input(1), Input(2), Weight(0)]
    assert open_circuit.observables == ("Y",)

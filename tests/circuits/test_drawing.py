"""Circuits as text."""

from qpeft.circuits import Circuit, Input, Operation, Weight, circuit_text


def test_every_qubit_is_a_line_and_time_runs_to_the_right():
    circuit = Circuit(
        3,
        (
            Operation("RY", (0,), Input(0)),
            Operation("CRZ", (0, 2), Weight(3)),
            Operation("H", (1,)),
            Operation("CNOT", (2, 1)),
        ),
    )
    assert circuit_text(circuit).splitlines() == [
        "0: -RY(x0)----*------------",
        "1: -----------|-----H--NOT-",
        "2: ---------RZ(w3)------*--",
    ]


def test_a_circuit_without_gates_is_its_qubits():
    assert circuit_text(Circuit(2, ())) == "0: \n1: "

"""Circuits as text and as pictures."""

import pytest

from qpeft.circuits import Circuit, Input, Operation, Weight, circuit_text
from qpeft.errors import CircuitError


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


def test_a_circuit_draws_itself_as_text_as_a_figure_and_in_notebooks():
    circuit = Circuit(2, [Operation("RY", (0,), Input(3)), Operation("CZ", (0, 1)), Operation("RX", (1,), Weight(0))])
    assert circuit.draw() == circuit_text(circuit)
    axes = circuit.draw("mpl").axes[0]
    assert {"RY\nx3", "Z", "RX\nw0"} <= {text.get_text() for text in axes.texts}
    assert circuit._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(CircuitError, match=r"draw\(\) makes 'text' or 'mpl'; got 'latex'"):
        circuit.draw("latex")

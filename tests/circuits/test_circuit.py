"""Circuits compare by value, count their angles, and refuse what cannot exist."""

import pickle

import numpy as np
import pytest

from qpeft.circuits import GATES, Circuit, Input, Operation, Weight
from qpeft.errors import CircuitError


def test_equal_circuits_compare_and_hash_equal():
    one, other = (Circuit(2, (Operation("RY", (0,), Input(0)), Operation("CNOT", (0, 1)))) for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)
    assert one != Circuit(2, one.operations, ("ZZ",))


def test_a_circuit_survives_pickling():
    circuit = Circuit(2, (Operation("RY", (0,), Weight(0)),))
    assert pickle.loads(pickle.dumps(circuit)) == circuit


def test_default_observables_are_z_of_every_qubit():
    assert Circuit(3, ()).observables == ("ZII", "IZI", "IIZ")


def test_angles_are_counted_by_their_highest_index():
    circuit = Circuit(
        1, (Operation("RY", (0,), Input(4)), Operation("RZ", (0,), Weight(2)), Operation("RX", (0,), 0.5))
    )
    assert (circuit.num_inputs, circuit.num_weights) == (5, 3)


def test_every_parametrised_gate_is_unitary_and_starts_at_the_identity():
    for gate in GATES.values():
        if gate.is_parametrised:
            assert np.allclose(gate.unitary(0.0), np.eye(2**gate.num_qubits))
            matrix = gate.unitary(1.3)
        else:
            matrix = gate.unitary()
        assert np.allclose(matrix @ matrix.conj().T, np.eye(2**gate.num_qubits))


def test_diagonal_gates_are_known():
    diagonal = {name for name, gate in GATES.items() if gate.is_diagonal}
    assert diagonal == {"Z", "S", "SDG", "T", "TDG", "CZ", "RZ", "PHASE", "CRZ", "CPHASE", "RZZ"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Operation("RYX", (0,), 0.1), "no gate 'RYX'. Did you mean 'RY'"),
        (lambda: Operation("ry", (0,), 0.1), "Did you mean 'RY'"),
        (lambda: Operation("QQQQQ", (0,)), "Known gates: H, X"),
        (lambda: Operation("CNOT", (0,)), r"2 different qubit\(s\); got qubits \(0,\)"),
        (lambda: Operation("CNOT", (1, 1)), "2 different qubit"),
        (lambda: Operation("RY", (0,)), "RY needs an angle"),
        (lambda: Operation("X", (0,), 0.3), "X takes no angle; got 0.3"),
        (lambda: Operation("RY", (0,), Input(-1)), "indices start at 0"),
        (lambda: Operation("RY", (0,), float("nan")), "finite angle; got nan"),
        (lambda: Circuit(0, ()), "at least 1 qubit; got 0"),
        (lambda: Circuit(1, (Operation("X", (1,)),)), "whose qubits are 0 to 0"),
        (lambda: Circuit(2, (), ("Z",)), "string of that many letters I, X, Y, Z; got 'Z'"),
        (lambda: Circuit(1, (), ("A",)), "got 'A'"),
    ],
)
def test_what_cannot_exist_is_refused_and_named(make, message):
    with pytest.raises(CircuitError, match=message):
        make()

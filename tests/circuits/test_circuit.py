"""Circuits compare by value, count their angles, and refuse what cannot exist."""

import copy
import os
import pickle
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch

from qpeft.circuits import GATES, Circuit, Input, Operation, Weight
from qpeft.devices import LocalDevice, run
from qpeft.errors import CircuitError


def test_equal_circuits_compare_and_hash_equal():
    one, other = (Circuit(2, (Operation("RY", (0,), Input(0)), Operation("CNOT", (0, 1)))) for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)
    assert one != Circuit(2, one.operations, ("ZZ",))


def test_a_circuit_survives_pickling():
    circuit = Circuit(2, (Operation("RY", (0,), Weight(0)),))
    assert pickle.loads(pickle.dumps(circuit)) == circuit


def test_a_pickled_circuit_is_found_in_tables_of_another_process():
    """Hashes of text differ from process to process, so one that was cached must not travel."""
    circuit = Circuit(2, (Operation("RY", (0,), Weight(0)),))
    hash(circuit)
    code = (
        "import pickle, sys; from qpeft.circuits import *; read = pickle.loads(sys.stdin.buffer.read());"
        "print({Circuit(2, (Operation('RY', (0,), Weight(0)),)): 'found'}.get(read))"
    )
    environment = os.environ | {"PYTHONHASHSEED": "1"}
    found = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(circuit), capture_output=True, check=True, env=environment
    )
    assert found.stdout.split() == [b"found"]
    assert copy.deepcopy(circuit) == copy.copy(circuit) == circuit


@pytest.mark.parametrize("angle", [np.float32(0.5), np.float64(0.5), np.int64(1), Fraction(1, 2)])
def test_numbers_of_other_types_are_the_same_angle(angle):
    operation, plain = Operation("RY", (0,), angle), Operation("RY", (0,), float(angle))
    assert operation == plain
    assert hash(operation) == hash(plain)
    assert isinstance(operation.angle, (int, float))
    (result,) = run(LocalDevice(), [Circuit(2, (operation, Operation("RY", (1,), 1.0)))], None)
    assert result == run(LocalDevice(), [Circuit(2, (plain, Operation("RY", (1,), 1.0)))], None)[0]


@pytest.mark.parametrize("angle", ["1", True, 1j, torch.tensor(0.5), torch.tensor(0.5, requires_grad=True)])
def test_what_is_no_number_is_no_angle(angle):
    with pytest.raises(CircuitError, match=r"RY needs an angle: Input\(index\), Weight\(index\) or a number"):
        Operation("RY", (0,), angle)


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

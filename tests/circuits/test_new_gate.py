"""A row of the gate table is all that a new gate needs: simulator, gradients and every device take it."""

import importlib.util
import math

import numpy as np
import pytest
import torch

from qpeft.circuits import GATES, Circuit, Gate, Operation, Weight
from qpeft.circuits.decomposition import inverted, to_controlled_z
from qpeft.circuits.gates import Part
from qpeft.circuits.origin_ir import to_origin_ir
from qpeft.devices.protocol import run
from qpeft.devices.registry import load_device
from qpeft.simulation import expectations
from qpeft_emulator import parse_origin_ir

Z = np.diag([1.0, -1.0])
X = np.array([[0, 1], [1, 0]])
NEW_GATES = {
    # On one qubit: its matrix alone. A quarter turn about the axis between X and Z.
    "TILTED": Gate("TILTED", 1, generator=(X + Z).astype(complex) / math.sqrt(2)),
    # On two: its matrix, and how it is made of others.
    "ISWAP": Gate(
        "ISWAP",
        2,
        matrix=np.array([[1, 0, 0, 0], [0, 0, 1j, 0], [0, 1j, 0, 0], [0, 0, 0, 1]]),
        parts=(
            Part("S", (0,)), Part("S", (1,)), Part("H", (0,)), Part("CNOT", (0, 1)), Part("CNOT", (1, 0)),
            Part("H", (1,)),
        ),
    ),
}  # fmt: skip


@pytest.fixture(params=NEW_GATES)
def name(request, monkeypatch):
    monkeypatch.setitem(GATES, request.param, NEW_GATES[request.param])
    return request.param


def circuit(name, angle):
    """The gate between gates that leave no state as it was, all values of which it changes."""
    gate = Operation(name, (0, 1)[: GATES[name].num_qubits], angle if GATES[name].is_parametrised else None)
    around = (
        [Operation("RY", (0,), 0.4), Operation("RX", (1,), 1.1)],
        [Operation("RX", (0,), -0.8), Operation("H", (1,))],
    )
    return Circuit(2, (*around[0], gate, *around[1]))


def dense(operations):
    whole = np.eye(4, dtype=complex)
    for operation in operations:
        matrix = operation.gate.unitary(operation.angle)
        if operation.gate.num_qubits == 1:
            matrix = np.kron(matrix, np.eye(2)) if operation.qubits == (0,) else np.kron(np.eye(2), matrix)
        elif operation.qubits == (1, 0):
            matrix = matrix.reshape(2, 2, 2, 2).transpose(1, 0, 3, 2).reshape(4, 4)
        whole = matrix @ whole
    return whole


def values(operations):
    """Z of both qubits, qubit 0 first."""
    shares = np.abs(dense(operations)[:, 0]) ** 2
    return [shares @ np.kron(Z, np.eye(2)).diagonal(), shares @ np.kron(np.eye(2), Z).diagonal()]


def test_it_is_simulated_and_differentiated(name):
    expected = values(circuit(name, 0.7).operations)
    weights = torch.full((circuit(name, Weight(0)).num_weights,), 0.7, dtype=torch.float64, requires_grad=True)
    found = expectations(circuit(name, Weight(0)), torch.zeros(1, 0, dtype=torch.float64), weights)
    assert found[0].tolist() == pytest.approx(expected, abs=1e-12)
    if GATES[name].is_parametrised:
        (slope,) = torch.autograd.grad(found[0, 0], weights)
        shifted = [values(circuit(name, 0.7 + step).operations)[0] for step in (1e-5, -1e-5)]
        assert slope.item() == pytest.approx((shifted[0] - shifted[1]) / 2e-5, abs=1e-8)


def test_it_comes_apart_and_is_undone(name):
    operation = circuit(name, 0.7).operations[2]
    parts = list(to_controlled_z([operation]))
    read = parse_origin_ir(to_origin_ir(Circuit(2, (operation,)))).circuit.operations
    for same in (parts, read):
        assert abs(np.trace(dense([operation]).conj().T @ dense(same))) == pytest.approx(4, abs=1e-9)
    assert abs(np.trace(dense([operation, *inverted([operation])]))) == pytest.approx(4, abs=1e-9)


DEVICES = {"local": {}, "pennylane": {"device": "default.qubit", "num_qubits": 2}}


@pytest.mark.parametrize("device", DEVICES)
def test_a_device_runs_it(name, device):
    if device == "pennylane" and importlib.util.find_spec("pennylane") is None:
        pytest.skip("needs PennyLane")
    (found,) = run(load_device(device, **DEVICES[device]), [circuit(name, 0.7)], None)
    shares = np.abs(dense(circuit(name, 0.7).operations)[:, 0]) ** 2
    assert [found.get(f"{outcome:02b}", 0.0) for outcome in range(4)] == pytest.approx(shares.tolist(), abs=1e-9)

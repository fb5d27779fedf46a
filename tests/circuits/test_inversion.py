"""Every gate undone by its inverse, against dense matrices."""

import dense_oracle
import numpy as np
import pytest

from qpeft.circuits import GATES, Circuit, Input, Operation
from qpeft.circuits.decomposition import inverted
from qpeft.errors import CircuitError


def unitary(operations, num_qubits=2):
    """Column by column: the circuit after X gates that prepare each basis state."""
    columns = []
    for state in range(2**num_qubits):
        flips = [Operation("X", (q,)) for q in range(num_qubits) if state >> (num_qubits - 1 - q) & 1]
        circuit = Circuit(num_qubits, (*flips, *operations))
        columns.append(dense_oracle.final_states(circuit, np.zeros((1, 0)), np.zeros((1, 0))).reshape(-1))
    return np.stack(columns, axis=1)


def gate(name, angle=0.7):
    qubits = (0, 1)[: GATES[name].num_qubits]
    return Operation(name, qubits, angle if GATES[name].is_parametrised else None)


def is_identity_up_to_a_phase(matrix):
    return abs(abs(np.trace(matrix)) - len(matrix)) < 1e-9


@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize("qubits", [(0, 1), (1, 0)], ids=["forwards", "backwards"])
def test_every_gate_is_undone_by_its_inverse(name, qubits):
    operation = Operation(name, qubits[: GATES[name].num_qubits], gate(name).angle)
    assert is_identity_up_to_a_phase(unitary([operation, *inverted([operation])]))
    assert not is_identity_up_to_a_phase(unitary([operation]))


@pytest.mark.parametrize("name", GATES)
def test_an_inverse_costs_one_gate_on_the_same_qubits(name):
    (undoing,) = inverted([gate(name)])
    assert undoing.qubits == gate(name).qubits


def test_a_circuit_is_undone_from_its_end():
    operations = [gate(name, angle=0.3 + number) for number, name in enumerate(GATES)]
    assert is_identity_up_to_a_phase(unitary([*operations, *inverted(operations)]))
    assert not is_identity_up_to_a_phase(
        unitary([*operations, *(inverted([operation])[0] for operation in operations)])
    )


def test_an_angle_that_is_no_number_is_refused():
    with pytest.raises(CircuitError, match="bind inputs and weights first"):
        inverted([Operation("RY", (0,), Input(0))])

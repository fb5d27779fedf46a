"""What a circuit becomes in a chip's own gates: the same values, and the cost counted by hand."""

import math

import dense_oracle as dense
import numpy as np
import pytest
from circuit_strategies import NUM_INPUTS, NUM_WEIGHTS, build, circuits
from hypothesis import given, settings

from qpeft.circuits import Circuit, Input, Operation, Weight, ansatz
from qpeft.circuits.native import gate_counts, native_circuit
from qpeft.errors import CircuitError


def rewritten(circuit, rows=3):
    generator = np.random.default_rng(0)
    inputs = generator.uniform(-3, 3, (rows, NUM_INPUTS))[:, : circuit.num_inputs]
    weights = generator.uniform(-3, 3, NUM_WEIGHTS)[: circuit.num_weights]
    native, angles = native_circuit(circuit, inputs.tolist(), weights.tolist())
    return inputs, weights, native, angles


@settings(max_examples=60)
@given(circuits(max_qubits=3, max_operations=12))
def test_native_gates_give_the_same_values_for_every_row(data):
    circuit = build(data)
    inputs, weights, native, angles = rewritten(circuit)
    assert {operation.gate_name for operation in native.operations} <= {"RZ", "RY", "CZ"}
    before, after = dense.expectations(circuit, inputs, weights), dense.expectations(native, angles, [])
    # Pulses below 1e-9 are left out, one a gate at most.
    np.testing.assert_allclose(after, before, rtol=0, atol=5e-8)


def names(circuit):
    return [operation.gate_name for operation in circuit.operations]


def test_rotations_in_a_row_are_one_pulse():
    alone = [Operation("RY", (0,), Input(0)), Operation("RZ", (0,), 0.3), Operation("H", (0,)), Operation("T", (0,))]
    *_, native, angles = rewritten(Circuit(1, tuple(alone)))
    assert names(native) == ["RY"]
    assert angles.shape == (3, 1)


def test_rotations_about_z_are_no_pulses_and_move_past_controlled_z():
    around = [Operation("RY", (0,), 0.4), Operation("RZ", (0,), Weight(0)), Operation("CZ", (0, 1))]
    circuit = Circuit(2, (*around, Operation("S", (0,)), Operation("RX", (0,), 0.2), Operation("RZ", (0,), 1.0)))
    *_, native, _ = rewritten(circuit)
    assert names(native) == ["RY", "CZ", "RZ", "RY"]


def test_a_pulse_that_no_row_needs_is_left_out():
    turn, back = Operation("RY", (0,), Weight(0)), Operation("CZ", (0, 1))
    assert names(native_circuit(Circuit(2, (turn, back)), [[], []], [0.0])[0]) == ["CZ"]
    one_row = Circuit(1, (Operation("RY", (0,), Input(0)),))
    native, angles = native_circuit(one_row, [[0.0], [0.5]], [])
    assert names(native) == ["RY"]
    np.testing.assert_allclose(angles, [[0.0], [0.5]], atol=1e-12)


def test_too_few_weights_are_an_error():
    with pytest.raises(CircuitError, match="has 8 weight angle"):
        native_circuit(ansatz.ring_cz(4), [[0.1] * 4], [0.0] * 7)


def test_cost_of_a_controlled_rotation_is_two_flips_and_three_pulses_on_its_target():
    circuit = Circuit(2, (Operation("CRZ", (1, 0), Weight(0)),))
    assert gate_counts(circuit) == ({0: 3, 1: 0}, {(0, 1): 2})


@pytest.mark.parametrize("depth", [1, 3])
def test_cost_of_the_rings(depth):
    ring = {(0, 1): 1, (1, 2): 1, (2, 3): 1, (0, 3): 1}
    # Between two rings of CZ lie the last RY of one layer and the first two of the next: one pulse.
    assert gate_counts(ansatz.ring_cz(4, depth)) == (
        dict.fromkeys(range(4), depth + 1),
        dict.fromkeys(ring, depth),
    )
    assert gate_counts(ansatz.ring_crz(4, depth))[1] == dict.fromkeys(ring, 4 * depth)


def test_a_turn_by_nothing_stays_nothing_where_phases_meet():
    """Half turns about X and Y, where one of the two phases of a pulse has no meaning."""
    gates = [Operation("X", (0,)), Operation("RZ", (0,), 0.7), Operation("RX", (0,), math.pi), Operation("SX", (0,))]
    circuit = Circuit(1, tuple(gates), ("X", "Y", "Z"))
    inputs, weights, native, angles = rewritten(circuit)
    assert len(native.operations) == 2
    before, after = dense.expectations(circuit, inputs, weights), dense.expectations(native, angles, [])
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-8)

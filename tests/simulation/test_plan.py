"""What circuits compile to, which weights have no effect, and what a plan says of itself."""

import dense_oracle as dense
import numpy as np
import pytest
import torch
from circuit_strategies import build, circuits
from hypothesis import given, settings

from qpeft.circuits import GATES, Circuit, Gate, Input, Operation, Weight, ansatz
from qpeft.circuits.gates import PAULI_MATRICES
from qpeft.errors import CircuitError
from qpeft.simulation import compile_plan, dead_weights, torch_path
from qpeft.simulation.lowering import Permutation, Phase, decompose, lower_gate
from qpeft.simulation.plan import PhaseLayer, RotationLayer, costs


def rows_of(kind, qubits, num_weights=0):
    return [Operation(kind, (qubit,), Weight(num_weights + qubit)) for qubit in range(qubits)]


def matrix_of(primitives, num_qubits, angle):
    """Dense matrix of lowered primitives, from their documented meaning."""
    size = 2**num_qubits
    total = np.eye(size, dtype=complex)
    for primitive in primitives:
        if isinstance(primitive, Permutation):
            step = np.zeros((size, size))
            step[list(primitive.images), range(size)] = 1
        elif isinstance(primitive, Phase):
            letters = ["Z" if qubit in primitive.qubits else "I" for qubit in range(num_qubits)]
            step = dense.rotation(dense.pauli_matrix(letters), primitive.factor * angle + primitive.offset)
        else:
            letters = ["Y" if qubit == primitive.qubit else "I" for qubit in range(num_qubits)]
            step = dense.rotation(dense.pauli_matrix(letters), primitive.factor * angle + primitive.offset)
        total = step @ total
    return total


@pytest.mark.parametrize("name", GATES)
def test_every_gate_of_the_table_is_its_primitives_up_to_a_phase(name):
    gate = GATES[name]
    for angle in (0.0, 0.7, -2.9, 5.0):
        expected = gate.unitary(angle if gate.is_parametrised else None)
        found = matrix_of(lower_gate(name), gate.num_qubits, angle)
        overlap = np.trace(expected.conj().T @ found) / len(expected)
        assert abs(abs(overlap) - 1) < 1e-12


@pytest.mark.parametrize("name", GATES)
def test_every_gate_of_the_table_has_the_textbook_matrix(name):
    gate = GATES[name]
    for angle in (0.3, -4.0) if gate.is_parametrised else (None,):
        expected = dense.FIXED[name] if angle is None else dense.PARAMETRISED[name](angle)
        assert np.allclose(gate.unitary(angle), expected, atol=1e-12)


def test_a_gate_that_cannot_be_reduced_is_named():
    generator = np.kron(PAULI_MATRICES["X"], PAULI_MATRICES["X"]) + np.kron(PAULI_MATRICES["Z"], PAULI_MATRICES["I"])
    with pytest.raises(CircuitError, match=r"cannot reduce the gate ODD .* product of gates"):
        decompose(Gate("ODD", 2, generator=generator))


def test_the_published_circuit_is_two_diagonals_around_one_layer_of_rotations():
    plan = compile_plan(ansatz.ring_crz(8))
    assert [type(layer) for layer in plan.layers] == [PhaseLayer, RotationLayer, PhaseLayer]
    assert len(plan.layers[1].rotations) == 8
    assert sum(term.use_sin for term in plan.terms) == 8  # the last rotations went into the observables


def test_rotations_by_input_and_weight_merge_into_one_encoding():
    first = compile_plan(ansatz.ring_cnot(3)).encoding[1]
    assert (first.inputs, first.weights) == (((1, 1.0),), ((1, 1.0),))


def test_permutations_leave_no_step():
    gates = [*rows_of("RY", 3), *(Operation("CNOT", (q, (q + 1) % 3)) for q in range(3)), Operation("SWAP", (0, 2))]
    plan = compile_plan(Circuit(3, tuple(gates)))
    assert plan.is_closed_form
    assert [term.pauli.letters(3) for term in plan.terms] == ["ZZZ", "ZZI", "IZZ"]


def test_a_ring_of_cz_has_a_closed_form():
    plan = compile_plan(ansatz.ring_cz(4))
    assert plan.is_closed_form
    assert {term.pauli.letters(4) for term in plan.terms if term.use_sin} == {"XZIZ", "ZXZI", "IZXZ", "ZIZX"}


def test_real_circuits_stay_real_and_complex_ones_do_not():
    assert compile_plan(ansatz.ring_cz(4, 3)).complex_from == len(compile_plan(ansatz.ring_cz(4, 3)).layers)
    assert compile_plan(ansatz.ring_crz(4, 3)).complex_from == 0


def test_equal_circuits_share_one_plan():
    assert compile_plan(ansatz.ring_crz(5)) is compile_plan(ansatz.ring_crz(5))


def test_an_rz_before_cnots_and_z_is_dead():
    gates = [*rows_of("RY", 3), *rows_of("RZ", 3, 3), *(Operation("CNOT", (q, (q + 1) % 3)) for q in range(3))]
    assert dead_weights(Circuit(3, tuple(gates))) == (3, 4, 5)


def test_a_weight_outside_the_light_cone_is_dead():
    gates = (Operation("RY", (0,), Weight(0)), Operation("RY", (1,), Weight(1)), Operation("RXX", (1, 2), Weight(2)))
    assert dead_weights(Circuit(3, gates, ("ZII",))) == (1, 2)


def test_phases_on_the_ground_state_are_dead():
    gates = (Operation("RZ", (0,), Weight(0)), Operation("CPHASE", (0, 1), Weight(1)), Operation("RY", (0,), Weight(2)))
    assert dead_weights(Circuit(2, gates)) == (0, 1)


@pytest.mark.parametrize("name", ansatz.ANSATZE)
@pytest.mark.parametrize(("num_qubits", "depth"), [(1, 1), (2, 1), (2, 2), (4, 1), (5, 2)])
def test_ready_made_circuits_have_no_dead_weight(name, num_qubits, depth):
    circuit = ansatz.ANSATZE[name](num_qubits, depth)
    if name == "ring_crz" and num_qubits == 1:
        return  # two RY in a row on one qubit
    assert dead_weights(circuit) == ()


@settings(max_examples=80)
@given(data=circuits(max_qubits=4, max_operations=15))
def test_dead_weights_have_no_gradient_and_unused_ones_are_dead(data):
    circuit = build(data)
    generator = torch.Generator().manual_seed(0)
    inputs, weights, grad = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((6, circuit.num_inputs), (circuit.num_weights,), (6, circuit.num_observables))
    )
    gradient = dense.gradients(circuit, inputs, weights, grad)[1]
    dead = list(dead_weights(circuit))
    assert np.abs(gradient[dead]).max(initial=0) < 1e-7
    used = {operation.angle.index for operation in circuit.operations if isinstance(operation.angle, Weight)}
    assert set(range(circuit.num_weights)) - used <= set(dead)
    assert torch_path.gradients(circuit, inputs, weights, grad)[1][dead].abs().sum() == 0


def test_a_plan_explains_its_steps_and_their_cost():
    text = str(compile_plan(ansatz.ring_crz(8)))
    for words in ("encode     RY on 8 qubits", "16 products of Z in one diagonal", "RY on 8 bits", "8 RY folded in"):
        assert words in text
    assert "Weights without effect: none" in text


def test_a_plan_in_closed_form_says_so():
    assert "closed form, no state" in str(compile_plan(ansatz.ring_cz(8)))


def test_cost_grows_by_n_times_two_to_the_n():
    per_amplitude = {
        n: sum(step.forward for step in costs(compile_plan(ansatz.ring_crz(n)))) / 2**n for n in (4, 8, 12)
    }
    assert per_amplitude[12] - per_amplitude[8] == pytest.approx(per_amplitude[8] - per_amplitude[4])


def test_token_dependent_steps_are_named():
    circuit = Circuit(
        2, (Operation("RY", (0,), 0.3), Operation("RZ", (0,), Input(0)), Operation("RX", (0,), Weight(0)))
    )
    assert "weights and inputs" in str(compile_plan(circuit))

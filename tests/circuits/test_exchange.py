"""Circuits of Qiskit, PennyLane and OpenQASM as ours and back; their own values are the right answers."""

import random

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from qpeft.circuits import GATES, Circuit, Input, Operation, Weight, ansatz, bind
from qpeft.circuits.exchange import (
    from_openqasm,
    from_pennylane,
    from_qiskit,
    to_openqasm,
    to_pennylane,
    to_qiskit,
)
from qpeft.circuits.origin_ir import to_origin_ir
from qpeft.errors import CircuitError
from qpeft.simulation import expectations

qml = pytest.importorskip("pennylane")
qiskit = pytest.importorskip("qiskit")
qi = pytest.importorskip("qiskit.quantum_info")

from qiskit.circuit import ClassicalRegister, Parameter, ParameterVector, QuantumCircuit  # noqa: E402
from qiskit.circuit.library import StatePreparation, UnitaryGate, real_amplitudes, zz_feature_map  # noqa: E402

NUM_RANDOM = 200


def random_circuit(seed):
    """A circuit of ours over the whole gate table, with inputs, weights and numbers for angles."""
    draw = random.Random(seed)
    num_qubits = draw.randint(1, 4)
    operations = []
    for _ in range(draw.randint(1, 20)):
        name = draw.choice([name for name, gate in GATES.items() if gate.num_qubits <= num_qubits])
        qubits = tuple(draw.sample(range(num_qubits), GATES[name].num_qubits))
        angle = draw.choice([Input(draw.randint(0, 2)), Weight(draw.randint(0, 3)), draw.uniform(-4, 4)])
        operations.append(Operation(name, qubits, angle if GATES[name].is_parametrised else None))
    words = tuple("".join(draw.choices("IXYZ", k=num_qubits)) for _ in range(3))
    return Circuit(num_qubits, tuple(operations), words)


def angles(circuit, seed):
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(size, generator=generator, dtype=torch.float64)
        for size in (circuit.num_inputs, circuit.num_weights)
    )


def values_in_qiskit(circuit, words):
    state = qi.Statevector(circuit)
    return torch.tensor([state.expectation_value(qi.Pauli(word[::-1])).real for word in words], dtype=torch.float64)


@pytest.mark.parametrize("block", range(4))
def test_random_circuits_have_the_same_values_in_qiskit_and_come_back(block):
    for seed in range(block * NUM_RANDOM // 4, (block + 1) * NUM_RANDOM // 4):
        circuit = random_circuit(seed)
        inputs, weights = angles(circuit, seed)
        ours = expectations(circuit, inputs, weights)
        theirs = to_qiskit(circuit)
        # Qiskit sorts parameters by vector and index: x before w only if we say so by name.
        numbers = {p: (inputs if p.name.startswith("x") else weights)[p.index].item() for p in theirs.parameters}
        assert_close(values_in_qiskit(theirs.assign_parameters(numbers), circuit.observables), ours, atol=1e-6, rtol=0)
        x = [p for p in theirs.parameters if p.name.startswith("x")]
        back = from_qiskit(theirs, inputs=x, observables=circuit.observables)
        # An index that no gate uses leaves no parameter behind, so indices may close up: compare values.
        used = [
            torch.stack([t[p.index] for p in ps]) if ps else t[:0]
            for t, ps in ((inputs, x), (weights, [p for p in theirs.parameters if p.name.startswith("w")]))
        ]
        assert_close(expectations(back, *used), ours, atol=1e-6, rtol=0)


@pytest.mark.parametrize("block", range(4))
def test_random_circuits_have_the_same_values_in_pennylane_and_come_back(block):
    for seed in range(block * NUM_RANDOM // 4, (block + 1) * NUM_RANDOM // 4):
        circuit = random_circuit(seed)
        inputs, weights = angles(circuit, seed)
        ours = expectations(circuit, inputs, weights)
        node = qml.QNode(to_pennylane(circuit), qml.device("default.qubit", wires=circuit.num_qubits))
        theirs = torch.tensor([float(value) for value in node(inputs, weights)], dtype=torch.float64)
        assert_close(theirs, ours, atol=1e-6, rtol=0)
        back = from_pennylane(node, inputs, weights)
        assert back.observables == circuit.observables
        kept = inputs[: back.num_inputs], weights[: back.num_weights]
        assert_close(expectations(back, *kept), ours, atol=1e-6, rtol=0)


def test_random_circuits_come_back_from_openqasm():
    for seed in range(NUM_RANDOM):
        circuit = random_circuit(seed)
        inputs, weights = angles(circuit, seed)
        text = to_openqasm(circuit)
        x = [f"_x_{index}_" for index in range(circuit.num_inputs) if f"_x_{index}_" in text]
        back = from_openqasm(text, inputs=x, observables=circuit.observables)
        used = [
            torch.stack([t[i] for i in range(len(t)) if f"_{name}_{i}_" in text] or [t.new_zeros(())])
            for name, t in (("x", inputs), ("w", weights))
        ]
        used = [t[:n] for t, n in zip(used, (back.num_inputs, back.num_weights), strict=True)]
        assert_close(expectations(back, *used), expectations(circuit, inputs, weights), atol=1e-6, rtol=0)


def test_an_ansatz_comes_back_equal_from_each():
    circuit = ansatz.ring_crz(4, 3)
    assert from_qiskit(to_qiskit(circuit), inputs="x") == circuit
    assert from_openqasm(to_openqasm(circuit), inputs="x") == circuit
    x, w = angles(circuit, 0)
    assert from_pennylane(to_pennylane(circuit), x, w) == circuit


NOTHING = torch.zeros(0).double()


def random_circuits_of_qiskit():
    """Over the whole of Qiskit's standard gates, most of which we lack."""
    from qiskit.circuit.random import random_circuit as random_qiskit

    return [random_qiskit(3, 3, max_operands=3, seed=seed) for seed in range(NUM_RANDOM)]


def test_200_random_circuits_of_qiskit_come_in_with_its_values():
    words = ["XYZ", "ZIZ", "IYX", "ZZZ"]
    for theirs in random_circuits_of_qiskit():
        ours = expectations(Circuit.from_qiskit(theirs, observables=words), NOTHING, NOTHING)
        assert_close(ours, values_in_qiskit(theirs, words), atol=1e-6, rtol=0)


@pytest.mark.parametrize("version", [2, 3])
def test_200_random_programs_of_openqasm_come_in_with_qiskit_s_values(version):
    from qiskit import qasm2, qasm3

    words = ["XYZ", "ZIZ", "IYX", "ZZZ"]
    for theirs in random_circuits_of_qiskit():
        text = (qasm2 if version == 2 else qasm3).dumps(theirs)
        ours = expectations(Circuit.from_openqasm(text, observables=words), NOTHING, NOTHING)
        assert_close(ours, values_in_qiskit(theirs, words), atol=1e-6, rtol=0)


def random_gate(draw, inputs, weights):
    """Put a gate of PennyLane that we lack into the circuit: templates, controlled and adjoint gates, unitaries."""
    a, b, c = draw.sample(range(3), 3)
    angle = draw.choice([inputs[0], 2 * inputs[1] - 0.3, -weights[0], weights[1] + inputs[0]])
    number = draw.uniform(-3, 3)
    places = [a, b, c][: draw.randint(1, 3)]
    unitary = qi.random_unitary(2 ** len(places), seed=draw.randint(0, 99)).data
    choices = [
        lambda: qml.Rot(angle, weights[1], -weights[0], wires=a),
        lambda: qml.U3(angle, weights[0], weights[1], wires=a),
        lambda: qml.adjoint(qml.RX(angle, wires=a)),
        lambda: qml.adjoint(qml.SX(wires=a)),
        lambda: qml.ctrl(qml.RY(angle, wires=a), control=b),
        lambda: qml.ctrl(qml.PhaseShift(angle, wires=a), control=b),
        lambda: qml.ctrl(qml.RX(number, wires=a), control=[b, c], control_values=[0, 1]),
        lambda: qml.ctrl(qml.Hadamard(a), control=b),
        lambda: qml.CRot(number, 0.3, -number, wires=[a, b]),
        lambda: qml.PauliRot(angle, "XYZ", wires=[a, b, c]),
        lambda: qml.IsingXX(angle, wires=[a, b]),
        lambda: qml.IsingXY(number, wires=[a, b]),
        lambda: qml.SingleExcitation(number, wires=[a, b]),
        lambda: qml.CSWAP([a, b, c]),
        lambda: qml.adjoint(qml.ISWAP([a, b])),
        lambda: qml.pow(qml.T(a), 3),
        lambda: qml.QFT(wires=[a, b, c]),
        lambda: qml.QubitUnitary(unitary, places),
        lambda: qml.adjoint(qml.QubitUnitary(unitary, places)),
    ]
    draw.choice(choices)()


def random_function(seed):
    """A quantum function over gates of PennyLane that we lack."""

    def function(inputs, weights):
        draw = random.Random(seed)
        for _ in range(8):
            random_gate(draw, inputs, weights)
        words = [qml.X(0) @ qml.Y(1), qml.Z(0) @ qml.Z(2), qml.Y(2), qml.X(1)]
        return [qml.expval(word) for word in words]

    return function


@pytest.mark.parametrize("block", range(4))
def test_200_random_circuits_of_pennylane_come_in_with_its_values(block):
    inputs, weights = torch.tensor([0.4, -1.1]).double(), torch.tensor([0.9, 2.3]).double()
    for seed in range(block * NUM_RANDOM // 4, (block + 1) * NUM_RANDOM // 4):
        function = random_function(seed)
        circuit = Circuit.from_pennylane(function, inputs, weights)
        values = qml.QNode(function, qml.device("default.qubit", wires=3))(inputs, weights)
        theirs = torch.tensor([float(value) for value in values], dtype=torch.float64)
        kept = inputs[: circuit.num_inputs], weights[: circuit.num_weights]
        assert_close(expectations(circuit, *kept), theirs, atol=1e-6, rtol=0)


def test_methods_of_a_circuit_are_the_doors(tmp_path):
    circuit = ansatz.ring_crz(3)
    x, w = angles(circuit, 0)
    path = tmp_path / "ring.qasm"
    path.write_text(circuit.to_openqasm())
    for program in (path, str(path), path.read_text()):
        assert Circuit.from_openqasm(program, inputs="x") == circuit
    assert Circuit.from_qiskit(circuit.to_qiskit(), inputs="x") == circuit
    assert Circuit.from_pennylane(circuit.to_pennylane(), x, w) == circuit
    assert circuit.to_originir(x.tolist(), w.tolist()) == to_origin_ir(bind(circuit, x.tolist(), w.tolist()))


def test_originir_has_no_parameters_so_unbound_ones_are_refused():
    with pytest.raises(CircuitError, match=r"has 3 input angle\(s\); got 0"):
        ansatz.ring_crz(3).to_originir()


def test_a_path_without_a_file_is_named(tmp_path):
    for source in (tmp_path / "none.qasm", str(tmp_path / "none.qasm")):
        with pytest.raises(CircuitError, match=r"none\.qasm cannot be read as OpenQASM"):
            Circuit.from_openqasm(source)


def test_qiskit_library_circuits_with_data_and_weights():
    """real_amplitudes has weights; an angle 2 x - w + 0.3 becomes gates that commute."""
    theirs = QuantumCircuit(3)
    x, w = ParameterVector("x", 2), Parameter("w")
    theirs.ry(2 * x[0] - w + 0.3, 0)
    theirs.cp(-3 * x[1], 0, 2)
    theirs.u(x[0], w, 0.2, 1)
    theirs.compose(real_amplitudes(3, reps=1), inplace=True)
    ours = from_qiskit(theirs, inputs=[x], observables=["ZXI", "IYZ"])
    assert (ours.num_inputs, ours.num_weights) == (2, 7)
    inputs, weights = angles(ours, 1)
    rest = sorted(
        (p for p in theirs.parameters if p not in list(x)),
        key=lambda p: (p.name.split("[")[0], getattr(p, "index", -1)),
    )
    numbers = dict(zip([*x, *rest], [*inputs.tolist(), *weights.tolist()], strict=True))
    assert_close(
        expectations(ours, inputs, weights),
        values_in_qiskit(theirs.assign_parameters(numbers), ours.observables),
        atol=1e-6,
        rtol=0,
    )


def test_a_prepared_state_and_a_unitary_come_in():
    state = np.array([0.5, 0.5j, -0.5, 0.5])
    unitary = qi.random_unitary(4, seed=3)
    theirs = QuantumCircuit(3)
    theirs.initialize(state, [0, 2])
    theirs.append(UnitaryGate(unitary), [1, 2])
    theirs.append(StatePreparation([0.6, 0.8]).control(1), [0, 1])
    words = ["XYZ", "ZZI", "YIX"]
    none = torch.zeros(0).double()
    expected = QuantumCircuit(3)
    expected.append(StatePreparation(state), [0, 2])
    expected.append(UnitaryGate(unitary), [1, 2])
    expected.append(StatePreparation([0.6, 0.8]).control(1), [0, 1])
    assert_close(
        expectations(from_qiskit(theirs, observables=words), none, none),
        values_in_qiskit(expected, words),
        atol=1e-6,
        rtol=0,
    )


def test_pennylane_templates_marks_and_shared_angles():
    device = qml.device("default.qubit", wires=3)

    @qml.qnode(device)
    def node(inputs, weights, fixed, shift=0.5):
        qml.AngleEmbedding(2 * inputs, wires=range(3), rotation="Y")
        qml.StronglyEntanglingLayers(weights, wires=range(3))
        qml.CRX(-inputs[0] + shift, wires=[0, 2])
        qml.ControlledPhaseShift(weights[0, 0, 0] - inputs[1], wires=[0, 2])
        qml.RZ(fixed[0], wires=1)
        qml.adjoint(qml.T)(1)
        qml.Toffoli([0, 1, 2])
        return qml.expval(qml.Z(0) @ qml.X(2)), qml.expval(qml.Y(1))

    draw = np.random.default_rng(0)
    x, w = qml.numpy.array(draw.normal(size=3)), qml.numpy.array(draw.normal(size=(2, 3, 3)))
    fixed = qml.numpy.array([0.7], requires_grad=False)
    ours = from_pennylane(node, x, w, fixed)
    assert (ours.num_inputs, ours.num_weights) == (3, 18 + 1), "shift is a real number, so it is trained; fixed is not"
    inputs, weights = torch.tensor(x.numpy()), torch.tensor([*w.numpy().ravel(), 0.5])
    theirs = torch.tensor([float(value) for value in node(x, w, fixed)], dtype=torch.float64)
    assert_close(expectations(ours, inputs, weights), theirs, atol=1e-6, rtol=0)


def test_wires_of_numpy_are_whole_numbers_and_rounding_leaves_no_gate():
    def function(inputs, weights):
        qml.AngleEmbedding(2 * inputs + weights[0] / 1, wires=np.arange(2), rotation="Y")
        return qml.expval(qml.Z(0))

    ours = from_pennylane(function, torch.ones(2), torch.ones(1))
    assert [operation.angle for operation in ours.operations] == [
        angle for qubit in range(2) for angle in (Input(qubit), Input(qubit), Weight(0))
    ]
    assert {type(qubit) for operation in ours.operations for qubit in operation.qubits} == {int}


def test_trainable_parameters_of_a_tape_become_weights():
    tape = qml.tape.QuantumScript(
        [qml.RX(0.3, 0), qml.RY(0.4, 1), qml.CNOT([0, 1])], [qml.expval(qml.Z(1))], trainable_params=[1]
    )
    ours = from_pennylane(tape)
    assert (ours.num_inputs, ours.num_weights) == (0, 1)
    value = expectations(ours, torch.zeros(0).double(), torch.tensor([0.4]).double())
    assert_close(value.item(), float(qml.execute([tape], qml.device("default.qubit"))[0]), atol=1e-6, rtol=0)


def measured_in_the_middle():
    circuit = QuantumCircuit(2, 1)
    circuit.h(0)
    circuit.measure(0, 0)
    circuit.cx(0, 1)
    return circuit


def conditional():
    circuit = QuantumCircuit(1)
    circuit.add_register(bit := ClassicalRegister(1))
    with circuit.if_test((bit, 1)):
        circuit.x(0)
    return circuit


def with_angle(make):
    circuit = QuantumCircuit(1)
    circuit.rx(make(Parameter("a"), Parameter("b")), 0)
    return circuit


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (measured_in_the_middle, {}, "after it was measured"),
        (conditional, {}, "if_else has no equal"),
        (lambda: with_angle(lambda a, b: a * b), {}, "not linear"),
        (lambda: with_angle(lambda a, b: 1j * a + b), {}, "complex"),
        (lambda: with_angle(lambda a, b: a / 2 + b), {}, "0.5 times a weight"),
        (lambda: with_angle(lambda a, b: a + b), {"inputs": ["c"]}, "no parameter 'c'; it has a, b"),
        (
            lambda: with_angle(lambda a, b: a + b),
            {"inputs": ["a"], "weights": ["a", "b"]},
            "both an input and a weight",
        ),
        (lambda: with_angle(lambda a, b: a + b), {"weights": ["a"]}, "b is neither an input nor a weight"),
        (lambda: QuantumCircuit(30), {}, "1 to 24 qubits; this one has 30"),
        (lambda: zz_feature_map(2), {}, "not linear"),
        (lambda: "OPENQASM 3;", {}, "A QuantumCircuit of Qiskit is needed; got str"),
        (lambda: QuantumCircuit(1), {"observables": [qi.SparsePauliOp(["X", "Z"])]}, "one Pauli string"),
    ],
)
def test_what_qiskit_has_and_we_lack_is_refused_by_name(make, options, message):
    with pytest.raises(CircuitError, match=message):
        from_qiskit(make(), **options)


def quantum_function(body, returns=lambda: qml.expval(qml.Z(0))):
    def function(inputs, weights):
        body(inputs, weights)
        return returns()

    return function


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (quantum_function(lambda _x, w: qml.RX(w[0], wires=0), qml.state), "expectation values of Pauli words"),
        (quantum_function(lambda _x, w: qml.RX(w[0], wires="a")), "Wires must be whole numbers"),
        (quantum_function(lambda x, w: qml.RX(x[0] * w[0], wires=0)), "not linear"),
        (quantum_function(lambda x, w: qml.RX(x[0].sin() + w[0], wires=0)), "not linear"),
        (quantum_function(lambda _x, w: qml.RX(w[0] / 2, wires=0)), "0.5 times a weight"),
        (quantum_function(lambda _x, _w: qml.measure(0)), "leave measurements in the middle out"),
        (quantum_function(lambda x, _w: qml.RX(0.1, 0) if x[0] > 0 else qml.RY(0.1, 0)), "Which gates"),
        (
            quantum_function(lambda _x, w: qml.RX(w[0], 0), lambda: qml.expval(2 * qml.Z(0) + qml.X(0))),
            "one Pauli word",
        ),
    ],
)
def test_what_pennylane_has_and_we_lack_is_refused_by_name(function, message):
    with pytest.raises(CircuitError, match=message):
        from_pennylane(function, torch.ones(2), torch.ones(2))


def test_openqasm_2_is_read_and_nonsense_refused():
    text = (
        'OPENQASM 2.0; include "qelib1.inc"; qreg q[2]; creg c[2]; h q[0]; '
        "cu1(0.4) q[0],q[1]; u3(0.1,0.2,0.3) q[1]; measure q -> c;"
    )
    ours = from_openqasm(text, observables=["XY", "ZZ"])
    theirs = qiskit.qasm2.loads(text, custom_instructions=qiskit.qasm2.LEGACY_CUSTOM_INSTRUCTIONS)
    theirs.remove_final_measurements()
    none = torch.zeros(0).double()
    assert_close(expectations(ours, none, none), values_in_qiskit(theirs, ["XY", "ZZ"]), atol=1e-6, rtol=0)
    for bad in (" ", "OPENQASM 3.0; qubit q; foo q;", "OPENQASM 3.0; qubit[2 q;", "OPENQASM 2.0; qreg q[1]; foo q[0];"):
        with pytest.raises(CircuitError, match="OpenQASM"):
            from_openqasm(bad)

"""Circuits into Qiskit's and samples out of it: same gates, same bit order, each result in its place."""

import numpy as np
import pytest
from dense_oracle import final_states

from qpeft.circuits import GATES, Circuit, Operation, ansatz, bind
from qpeft.circuits.exchange import QISKIT_NAMES
from qpeft.devices import load_device, run
from qpeft.devices.ibm import translation
from qpeft.devices.ibm.jobs import start
from qpeft.devices.ibm.service import local_backend
from qpeft.devices.ibm.translation import Translator, distributions, to_qiskit
from qpeft.errors import DeviceError, OrderError, RefusedError

TILTED = (Operation("RY", (0,), 0.4), Operation("RY", (1,), 1.1), Operation("RX", (2,), 2.3))
"""Three qubits, none like another and none in a basis state."""


def dense(circuit):
    return np.abs(final_states(circuit, np.zeros((1, 0)), np.zeros((1, 0))).reshape(-1)) ** 2


def by_qiskit(circuit):
    """Exact shares of Qiskit's own state vector, our bit order."""
    from qiskit.quantum_info import Statevector

    shares = Statevector(to_qiskit(circuit).remove_final_measurements(inplace=False)).probabilities_dict()
    return [shares.get(f"{outcome:0{circuit.num_qubits}b}"[::-1], 0.0) for outcome in range(2**circuit.num_qubits)]


@pytest.mark.parametrize("gate", GATES.values(), ids=GATES)
@pytest.mark.parametrize("qubits", [(0, 1), (2, 0)])
def test_every_gate_is_that_of_dense_matrices(gate, qubits):
    operation = Operation(gate.name, qubits[: gate.num_qubits], 0.7 if gate.is_parametrised else None)
    # Turned before and after, so that phases show.
    circuit = Circuit(3, (*TILTED, operation, *(Operation("RX", (qubit,), 0.9 + qubit) for qubit in range(3))))
    np.testing.assert_allclose(by_qiskit(circuit), dense(circuit), atol=1e-12)


def test_the_table_has_every_gate():
    assert sorted(QISKIT_NAMES) == sorted(GATES)


@pytest.mark.parametrize("qubit", range(3))
def test_the_leftmost_bit_is_qubit_0_wherever_it_lies_on_the_chip(qubit):
    # A chip that errs now and then: the right outcome is by far the most frequent.
    device = load_device("ibm", backend="FakeManilaV2", qubits=[3, 1, 4], seed=0)
    [result] = run(device, [Circuit(3, (Operation("X", (qubit,)),))], 200)
    assert max(result, key=result.get) == "0" * qubit + "1" + "0" * (2 - qubit)


@pytest.fixture
def translator():
    return Translator(local_backend("aer"), optimization_level=2, qubits=None)


def ring(seed):
    circuit = ansatz.ring_crz(2)
    angles = np.random.default_rng(seed).uniform(-3, 3, circuit.num_inputs + circuit.num_weights)
    return bind(circuit, angles[: circuit.num_inputs], angles[circuit.num_inputs :])


def test_circuits_of_one_structure_are_prepared_once_and_share_a_bloc(translator, monkeypatch):
    seen = []
    monkeypatch.setattr(translation, "to_qiskit", lambda circuit: (seen.append(circuit), to_qiskit(circuit))[1])
    for seeds in (range(5), range(5, 9)):
        [(prepared, values)] = translator.pubs([ring(seed) for seed in seeds])
        [rows] = values.values()
        assert rows.shape == (len(seeds), len(prepared.parameters))
    assert len(seen) == 1


def test_prepared_circuits_at_their_values_are_the_circuits(translator):
    from qiskit.quantum_info import Statevector

    circuits = [ring(0), ring(1)]
    [(prepared, values)] = translator.pubs(circuits)
    [(parameters, rows)] = values.items()
    for circuit, row in zip(circuits, rows, strict=True):
        bound = prepared.assign_parameters(dict(zip(parameters, row, strict=True)))
        shares = Statevector(bound.remove_final_measurements(inplace=False)).probabilities_dict()
        found = [shares.get(f"{outcome:02b}"[::-1], 0.0) for outcome in range(4)]
        np.testing.assert_allclose(found, dense(circuit), atol=1e-9)


def test_results_are_in_order_although_structures_alternate():
    device = load_device("ibm", backend="aer", seed=3)
    kinds = [
        lambda turn: Circuit(1, (Operation("RX", (0,), turn),)),
        lambda turn: Circuit(2, (Operation("RY", (1,), turn),)),
        lambda turn: Circuit(2, (Operation("RZ", (0,), turn),)),  # which no measurement sees
    ]
    circuits = [kinds[place](turn) for place in (0, 0, 1, 2, 2, 2, 0, 1, 1) for turn in (np.pi, 0.0)]
    results = run(device, circuits, 50)
    assert results == [{format(int(np.argmax(dense(circuit))), f"0{circuit.num_qubits}b"): 1.0} for circuit in circuits]


@pytest.fixture
def sampled():
    """Results of four blocs of two structures, and what they are as distributions."""
    kinds = [Circuit(1, (Operation("RX", (0,), np.pi),)), Circuit(2, (Operation("RY", (1,), np.pi),))]
    device = load_device("ibm", backend="aer", seed=3)
    pubs = device._translator.pubs([kinds[place] for place in (0, 1, 1, 0, 1)])
    assert len(pubs) == 4
    return start(device._backend, pubs, 20, {}).result(), [
        {"1": 1.0},
        {"01": 1.0},
        {"01": 1.0},
        {"1": 1.0},
        {"01": 1.0},
    ]


@pytest.mark.parametrize("order", [[3, 2, 1, 0], [1, 2, 3, 0], [2, 3, 0, 1], [2, 0, 3, 1]])
def test_results_are_matched_by_the_number_of_their_bloc_in_whatever_order_they_come(sampled, order):
    from qiskit.primitives import PrimitiveResult

    result, expected = sampled
    assert distributions(result) == expected
    assert distributions(PrimitiveResult([result[place] for place in order])) == expected


def test_results_without_numbers_are_taken_as_they_come_and_missing_or_double_ones_are_refused(sampled):
    from qiskit.primitives import PrimitiveResult, PubResult

    result, expected = sampled
    older = [PubResult(bloc.data, {"circuit_metadata": {}}) for bloc in result]
    assert distributions(PrimitiveResult(older)) == expected
    for wrong in ([0, 1, 2, 2], [0, 1, 3]):
        with pytest.raises(OrderError, match="number of its circuits"):
            distributions(PrimitiveResult([result[place] for place in wrong]))
    with pytest.raises(OrderError, match="number of its circuits"):
        distributions(PrimitiveResult([*older[:2], *list(result)[2:]]))


def test_angles_stay_with_their_gates_when_an_earlier_gate_is_dropped():
    # The transpiler drops the RZ, which no measurement sees.
    circuits = [
        Circuit(2, (Operation("RY", (0,), turn), Operation("RZ", (0,), 1.0), Operation("RY", (1,), np.pi - turn)))
        for turn in (0.0, np.pi)
    ]
    assert run(load_device("ibm", backend="aer", seed=3), circuits, 50) == [{"01": 1.0}, {"10": 1.0}]


def test_results_of_another_program_are_refused():
    from qiskit import QuantumCircuit
    from qiskit.primitives import StatevectorSampler

    circuit = QuantumCircuit(1)
    circuit.measure_all()
    with pytest.raises(DeviceError, match=r"no register 'bits' but \['meas'\]"):
        distributions(StatevectorSampler().run([circuit], shots=5).result())


@pytest.mark.parametrize(("qubits", "message"), [([0], "too few"), ([0, 9], "cannot prepare")])
def test_qubits_that_do_not_fit_are_refused_before_anything_is_sent(qubits, message):
    device = load_device("ibm", backend="FakeManilaV2", qubits=qubits)
    with pytest.raises(RefusedError, match=f"{message}.*nothing was sent|nothing was sent.*{message}"):
        device.submit([ring(0)], 10)

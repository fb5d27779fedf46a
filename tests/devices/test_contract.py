"""What every quantum device satisfies, whoever made it; see conftest.py for how one joins."""

import math
import time

import numpy as np
import pytest
from dense_oracle import final_states

from qpeft.circuits import GATES, Circuit, Input, Operation, Weight, ansatz
from qpeft.devices import JobState, run
from qpeft.devices.protocol import check_results
from qpeft.errors import DeviceError, JobError, ShotsError


def random_circuit(num_qubits, gate_names, seed, length=12):
    """Bound, of all kinds of gates that are named, each at random angles and places."""
    generator = np.random.default_rng(seed)
    names = sorted(name for name in gate_names if GATES[name].num_qubits <= num_qubits)
    operations = []
    for name in generator.choice(names, length):
        qubits = generator.permutation(num_qubits)[: GATES[name].num_qubits].tolist()
        angle = float(generator.uniform(-np.pi, np.pi)) if GATES[name].is_parametrised else None
        operations.append(Operation(str(name), tuple(qubits), angle))
    return Circuit(num_qubits, tuple(operations))


def dense_probabilities(circuit):
    """Of all bit strings, by dense matrices."""
    return np.abs(final_states(circuit, np.zeros((1, 0)), np.zeros((1, 0))).reshape(-1)) ** 2


def run_one(contract, circuits, shots):
    return run(contract.device, circuits, shots, seconds_between_polls=contract.seconds_between_polls)


def finished_job(contract, circuits, shots):
    job_id = contract.device.submit(circuits, shots)
    while not contract.device.poll(job_id).state.is_final:
        time.sleep(contract.seconds_between_polls)
    return job_id


def test_shares_agree_with_dense_matrices_within_five_standard_errors(contract):
    gates = contract.device.capabilities().gate_names
    circuits = [random_circuit(1 + seed % 4, gates, seed) for seed in range(12)]
    for circuit, result in zip(circuits, run_one(contract, circuits, contract.shots), strict=True):
        expected = dense_probabilities(circuit)
        shares = np.array([result.get(f"{k:0{circuit.num_qubits}b}", 0.0) for k in range(len(expected))])
        errors = np.sqrt(expected * (1 - expected) / contract.shots)
        # One count more, because a rare outcome is no Gaussian.
        assert (np.abs(shares - expected) < 5 * errors + 1 / contract.shots + 1e-9).all()


def test_exact_shares_are_those_of_dense_matrices_or_are_refused(contract):
    capabilities = contract.device.capabilities()
    circuit = random_circuit(3, capabilities.gate_names, seed=5)
    if not capabilities.can_be_exact:
        with pytest.raises(ShotsError, match="use 'local'"):
            contract.device.submit([circuit], None)
        return
    (result,) = run_one(contract, [circuit], None)
    shares = [result.get(f"{k:03b}", 0.0) for k in range(8)]
    np.testing.assert_allclose(shares, dense_probabilities(circuit), atol=1e-9)


@pytest.mark.parametrize("qubit", range(3))
def test_the_leftmost_bit_is_qubit_0(contract, qubit):
    half_turn = Operation("RX", (qubit,), float(np.pi))
    (result,) = run_one(contract, [Circuit(3, (half_turn,))], 20)
    assert result == {"0" * qubit + "1" + "0" * (2 - qubit): pytest.approx(1)}


def test_every_circuit_has_its_result_in_its_place(contract):
    circuits = [Circuit(size, (Operation("RX", (size - 1,), float(np.pi)),)) for size in (2, 1, 3, 2, 1)]
    results = run_one(contract, circuits, 20)
    check_results(circuits, results)
    assert [max(result, key=result.get) for result in results] == ["01", "1", "001", "01", "1"]


def test_results_can_be_fetched_again_and_are_the_same(contract):
    circuits = [random_circuit(2, contract.device.capabilities().gate_names, seed) for seed in (1, 2)]
    job_id = finished_job(contract, circuits, 100)
    first = contract.device.fetch(job_id)
    first[0]["00"] = 7.0  # a caller's own copy
    again = contract.device.fetch(job_id)
    assert again == contract.device.fetch(job_id)
    check_results(circuits, again)


def test_a_finished_job_stays_finished_and_cancelling_it_changes_nothing(contract):
    job_id = finished_job(contract, [Circuit(1, ())], 10)
    contract.device.cancel(job_id)
    assert contract.device.poll(job_id).state is JobState.FINISHED
    assert contract.device.fetch(job_id) == [{"0": pytest.approx(1)}]


def test_results_of_an_unfinished_job_are_refused(contract):
    job_id = contract.unfinished_job(Circuit(1, ()))
    with pytest.raises(JobError, match=job_id):
        contract.device.fetch(job_id)


def test_a_cancelled_job_has_no_results(contract):
    job_id = contract.unfinished_job(Circuit(1, ()))
    contract.device.cancel(job_id)
    assert contract.device.poll(job_id).state is JobState.CANCELLED
    with pytest.raises(JobError, match=job_id):
        contract.device.fetch(job_id)


@pytest.mark.parametrize("job_id", ["no-such-job", ""])
def test_an_unknown_job_is_an_error(contract, job_id):
    with pytest.raises(JobError):
        contract.device.poll(job_id)
    with pytest.raises(JobError):
        contract.device.fetch(job_id)


@pytest.mark.parametrize("shots", [0, -3, 1.5, 100.0, True, "100", math.nan])
def test_no_shots_are_refused_naming_what_came(contract, shots):
    with pytest.raises(ShotsError, match=f"got {shots!r}.*use 'local'"):
        contract.device.submit([Circuit(1, ())], shots)


def test_too_many_shots_are_refused_and_without_a_limit_none_are_too_many(contract):
    limit = contract.device.capabilities().max_shots
    if limit is None:
        [result] = run(contract.device, [Circuit(1, ())], 10**6, seconds_between_polls=0)
        assert result == {"0": 1.0}
        return
    with pytest.raises(ShotsError, match="at most"):
        contract.device.submit([Circuit(1, ())], limit + 1)


def test_too_many_qubits_are_refused(contract):
    capabilities = contract.device.capabilities()
    with pytest.raises(DeviceError, match=f"{capabilities.name} has {capabilities.num_qubits} qubits"):
        contract.device.submit([Circuit(1, ()), Circuit(capabilities.num_qubits + 1, ())], 10)


@pytest.mark.parametrize("angle", [Input(0), Weight(0)])
def test_circuits_with_open_angles_are_refused(contract, angle):
    with pytest.raises(DeviceError, match="bind"):
        contract.device.submit([Circuit(1, (Operation("RY", (0,), angle),))], 10)


@pytest.mark.parametrize("gate", GATES.values(), ids=GATES)
def test_gates_that_it_has_run_and_others_are_refused_by_name(contract, gate):
    operation = Operation(gate.name, tuple(range(gate.num_qubits)), 0.5 if gate.is_parametrised else None)
    if gate.name in contract.device.capabilities().gate_names:
        [result] = run(contract.device, [Circuit(2, (operation,))], 10, seconds_between_polls=0)
        assert sum(result.values()) == pytest.approx(1)
        return
    with pytest.raises(DeviceError, match=gate.name):
        contract.device.submit([Circuit(2, (operation,))], 10)


def test_every_ready_made_ansatz_fits_its_gates(contract):
    names = {operation.gate_name for build in ansatz.ANSATZE.values() for operation in build(3).operations}
    assert names <= contract.device.capabilities().gate_names

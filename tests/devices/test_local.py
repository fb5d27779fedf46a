"""The local device: reproducible from its seed, true to its noise model, and clear about what it cannot do."""

from contextlib import closing

import numpy as np
import pytest
import torch

from qpeft.circuits import Circuit, Input, Operation, ansatz, bind
from qpeft.devices import Capabilities, LocalDevice, device_expectations, load_device, memory_jobs, run
from qpeft.devices import local as local_module
from qpeft.devices.journal import Journal
from qpeft.devices.protocol import CallKey, check_request
from qpeft.devices.queue import JournalledRunner
from qpeft.errors import DeviceError, JobError, NoiseError, ShotsError, SimulationError
from qpeft.simulation.noise import EdgeNoise, NoiseModel, QubitNoise, ReadoutError, noisy_expectations
from qpeft.simulation.noise.counter import Stream

NOISE = NoiseModel.uniform(
    3, qubit=QubitNoise(0.03, readout=ReadoutError(0.05, 0.12)), edge=EdgeNoise(0.1), edges=[(0, 1), (1, 2)]
)
COIN = Circuit(1, (Operation("H", (0,)),))


def test_samples_are_a_function_of_seed_job_and_place():
    one, other, third = LocalDevice(seed=4), LocalDevice(seed=4), LocalDevice(seed=5)
    first = run(one, [COIN] * 4, 1000)
    assert first == run(other, [COIN] * 4, 1000)
    shares = [result["0"] for result in (*first, *run(one, [COIN], 1000), *run(third, [COIN], 1000))]
    assert len(set(shares)) == 6  # each job, place and seed has samples of its own


def test_samples_depend_on_no_other_circuit_of_the_job():
    circuit = Circuit(2, (Operation("H", (0,)), Operation("CRX", (0, 1), 0.7)))
    alone = run(LocalDevice(seed=4), [circuit], 500)
    assert run(LocalDevice(seed=4), [circuit, COIN, circuit], 500)[0] == alone[0]


def test_samples_depend_on_no_order_of_asking():
    one, other = LocalDevice(seed=2), LocalDevice(seed=2)
    for device, order in ((one, (0, 1)), (other, (1, 0))):
        jobs = [device.submit([COIN], 400) for _ in range(2)]
        for number in order:
            device.poll(jobs[number])
    assert [one.fetch(f"local-{n}") for n in (0, 1)] == [other.fetch(f"local-{n}") for n in (0, 1)]


def test_blocks_change_nothing(monkeypatch):
    circuits = [Circuit(2, (Operation("RY", (0,), 0.1 * n), Operation("CNOT", (0, 1)))) for n in range(7)]
    whole = run(LocalDevice(), circuits, 50)
    monkeypatch.setattr(local_module, "NUMBERS_PER_BLOCK", 17)
    assert run(LocalDevice(), circuits, 50) == whole


def test_exact_values_with_noise_are_those_of_density_matrices():
    circuit = Circuit(3, tuple(Operation(name, qubits, 0.6) for name, qubits in (("RY", (0,)), ("CRX", (0, 1)))))
    (result,) = run(LocalDevice(noise=NOISE), [circuit], None)
    expected = noisy_expectations(circuit, torch.zeros(1, 0), torch.zeros(0), NOISE)[0]
    values = [sum(share * (1 - 2 * int(bits[q])) for bits, share in result.items()) for q in range(3)]
    np.testing.assert_allclose(values, expected.numpy(), atol=1e-6)
    assert expected[2] == pytest.approx(1 - 2 * 0.05)  # readout errors are in it


def test_many_shots_are_drawn_in_blocks_that_change_no_sample(monkeypatch):
    circuits, largest = [Circuit(2, (Operation("H", (0,)), Operation("CRX", (0, 1), 0.7)))] * 2, []
    uniforms = Stream.uniforms
    monkeypatch.setattr(Stream, "uniforms", lambda self, *shape: largest.append(max(shape)) or uniforms(self, *shape))
    results = run(LocalDevice(seed=4), circuits, 2_000_000)
    # As they came when all of a circuit were drawn at once.
    assert [{bits: round(share * 2e6) for bits, share in result.items()} for result in results] == [
        {"00": 1000160, "10": 882802, "11": 117038},
        {"00": 1000637, "10": 882308, "11": 117055},
    ]
    assert max(largest) == 2**20


@pytest.mark.parametrize("shots", [1.5, True, "100"])
def test_shots_that_are_no_whole_number_make_no_job(shots, tmp_path):
    circuit, device = Circuit(1, (Operation("RY", (0,), Input(0)),)), LocalDevice()
    with closing(Journal(tmp_path / "jobs.sqlite")) as journal:
        runner = JournalledRunner(journal, "run")
        asks = [
            lambda: device.submit([COIN], shots),
            lambda: device_expectations(circuit, torch.zeros(1, 1), torch.empty(0), device, shots),
            lambda: runner(device, [COIN], shots, key=CallKey("layer")),
        ]
        for ask in asks:
            with pytest.raises(ShotsError, match=f"whole number; got {shots!r}"):
                ask()
    assert device.submit([COIN], 10) == "local-0"


def test_shots_of_numpy_are_the_same_call_to_the_journal(tmp_path):
    with closing(Journal(tmp_path / "jobs.sqlite")) as journal:
        runner, key = JournalledRunner(journal, "run"), CallKey("layer")
        assert runner(LocalDevice(), [COIN], np.int64(10), key=key) == runner(LocalDevice(), [COIN], 10, key=key)


@pytest.mark.parametrize("options", [{"num_qubits": True}, {"num_qubits": 2.5}, {"seed": 1.5}, {"seed": False}])
def test_options_that_are_no_whole_numbers_are_refused(options):
    with pytest.raises((DeviceError, SimulationError), match=f"got (num_qubits=)?{next(iter(options.values()))!r}"):
        LocalDevice(**options)
    if True in options.values() or False in options.values():
        with pytest.raises(DeviceError, match="a number is needed; got"):
            load_device("local", **options)


def test_shares_are_whole_numbers_of_shots():
    (result,) = run(LocalDevice(), [Circuit(2, (Operation("H", (0,)), Operation("H", (1,))))], 777)
    counts = [share * 777 for share in result.values()]
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-10)
    assert sum(round(count) for count in counts) == 777


def test_readout_errors_are_sampled_at_their_rate():
    (result,) = run(LocalDevice(noise=NOISE, seed=3), [Circuit(1, ())], 20_000)
    assert abs(result["1"] - 0.05) < 5 * (0.05 * 0.95 / 20_000) ** 0.5


def test_the_calibration_is_its_noise_model():
    assert LocalDevice(noise=NOISE).calibration() == NOISE
    assert LocalDevice().calibration() is None


def test_an_edge_that_the_noise_model_lacks_is_refused_and_makes_no_job():
    device = LocalDevice(noise=NOISE)
    with pytest.raises(DeviceError, match=r"no job was made.*qubits 0 and 2"):
        device.submit([Circuit(3, (Operation("CZ", (0, 2)),))], 10)
    assert device.submit([COIN], 10) == "local-0"


@pytest.mark.parametrize(("options", "largest"), [({}, 20), ({"noise": NOISE}, 3)])
def test_it_has_as_many_qubits_as_can_be_simulated(options, largest):
    assert LocalDevice(**options).capabilities().num_qubits == largest
    for wrong in (0, largest + 1):
        with pytest.raises(DeviceError, match=f"1 to {largest} qubits.*num_qubits={wrong}"):
            LocalDevice(num_qubits=wrong, **options)


def test_a_noise_model_with_a_hole_is_refused():
    with pytest.raises(NoiseError, match="qubit 1"):
        LocalDevice(num_qubits=2, noise=NoiseModel.from_mappings({0: QubitNoise(), 2: QubitNoise()}, {}))


def test_a_seed_out_of_range_is_refused():
    with pytest.raises(SimulationError, match="seed"):
        LocalDevice(seed=-1)


def test_results_beyond_those_kept_are_forgotten_with_a_message(monkeypatch):
    monkeypatch.setattr(memory_jobs, "KEPT_OUTCOMES", 5)
    device = LocalDevice()
    jobs = [device.submit([COIN] * size, 10_000) for size in (1, 1, 1, 4)]  # two outcomes a circuit
    for job in jobs[:3]:
        device.poll(job)
    with pytest.raises(JobError, match="forgotten job 'local-0'"):
        device.poll(jobs[0])
    assert [len(device.fetch(job)) for job in jobs[1:3]] == [1, 1]
    device.poll(jobs[3])  # larger than all that is kept, and yet there
    assert len(device.fetch(jobs[3])) == 4
    with pytest.raises(JobError, match="forgotten job 'local-2'"):
        device.fetch(jobs[2])


def test_a_job_without_circuits_has_no_results():
    device = LocalDevice()
    job = device.submit([], 10)
    device.poll(job)
    assert device.fetch(job) == []


def test_a_device_with_few_gates_refuses_the_others_by_name():
    few = Capabilities("few", 4, frozenset({"RY", "CZ"}), 100, 2, can_be_exact=False, is_remote=True)
    circuit = ansatz.ring_crz(2)
    with pytest.raises(DeviceError, match="few has no gate CRZ"):
        check_request(few, [bind(circuit, [0.0] * 2, [0.0] * circuit.num_weights)], 10)

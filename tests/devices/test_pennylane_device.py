"""PennyLane's devices behind our protocol: same gates, same bit order, and honest about what they are."""

import numpy as np
import pennylane
import pytest
from dense_oracle import final_states
from pennylane.devices import Device

from qpeft.circuits import GATES, Circuit, Operation, ansatz, bind
from qpeft.circuits.exchange import PENNYLANE_ADJOINTS as ADJOINTS
from qpeft.circuits.exchange import PENNYLANE_NAMES as NAMES
from qpeft.devices import JobState, load_device, run
from qpeft.devices.pennylane import LOCAL_SIMULATORS
from qpeft.errors import DeviceError, JobError, OrderError, ShotsError
from qpeft_emulator.faults import places

KEY = "k3y-0f-t3sts"
TILTED = (Operation("RY", (0,), 0.4), Operation("RY", (1,), 1.1), Operation("RX", (2,), 2.3))
"""Three qubits, none like another and none in a basis state."""


def probabilities(circuit):
    """By dense matrices, of all bit strings."""
    return np.abs(final_states(circuit, np.zeros((1, 0)), np.zeros((1, 0))).reshape(-1)) ** 2


def exact(device, circuit):
    [result] = run(device, [circuit], None)
    return [result.get(f"{outcome:0{circuit.num_qubits}b}", 0.0) for outcome in range(2**circuit.num_qubits)]


@pytest.fixture(scope="module")
def device():
    return load_device("pennylane", device="default.qubit", num_qubits=3)


@pytest.mark.parametrize("gate", GATES.values(), ids=GATES)
@pytest.mark.parametrize("qubits", [(0, 1), (2, 0)])
def test_every_gate_is_that_of_dense_matrices(device, gate, qubits):
    operation = Operation(gate.name, qubits[: gate.num_qubits], 0.7 if gate.is_parametrised else None)
    # Turned before and after, so that phases show.
    circuit = Circuit(3, (*TILTED, operation, *(Operation("RX", (qubit,), 0.9 + qubit) for qubit in range(3))))
    np.testing.assert_allclose(exact(device, circuit), probabilities(circuit), atol=1e-12)


def test_the_table_has_every_gate_once():
    assert sorted([*NAMES, *ADJOINTS]) == sorted(GATES)


@pytest.mark.parametrize("name", ["default.qubit", "default.mixed", "lightning.qubit"])
@pytest.mark.parametrize("shots", [None, 4000])
def test_simulators_agree_with_dense_matrices(name, shots):
    circuit = ansatz.ring_crz(3)
    bound = bind(circuit, [0.3, -1.0, 2.0], [0.1 * n for n in range(circuit.num_weights)])
    [result] = run(load_device("pennylane", device=name, num_qubits=4, seed=3), [bound], shots)
    expected = probabilities(bound)
    errors = 1e-9 if shots is None else 5 * np.sqrt(expected * (1 - expected) / shots) + 1 / shots
    assert (np.abs([result.get(f"{k:03b}", 0.0) for k in range(8)] - expected) < errors).all()


def test_samples_come_from_the_seed():
    circuits = [Circuit(3, TILTED)] * 2
    first, second, third = (
        run(load_device("pennylane", device="default.qubit", num_qubits=3, seed=seed), circuits, 500)
        for seed in (1, 1, 2)
    )
    assert first == second
    assert first != third
    assert first[0] != first[1]


def test_shares_are_whole_numbers_of_shots(device):
    [result] = run(device, [Circuit(3, TILTED)], 777)
    counts = np.array(list(result.values())) * 777
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-9)
    assert all(type(bits) is str and type(share) is float for bits, share in result.items())


@pytest.mark.parametrize("name", ["default.qubit", "lightning.qubit"])
def test_simulators_are_local_and_exact(name):
    capabilities = load_device("pennylane", device=name, num_qubits=2).capabilities()
    assert name in LOCAL_SIMULATORS
    assert (capabilities.is_remote, capabilities.can_be_exact, capabilities.keeps_jobs) == (False, True, False)
    assert (capabilities.simplifies_circuits, capabilities.chooses_qubits) == (False, False)


class Cloud(Device):
    """A device that a plugin brings: forgetful of a name in PennyLane's list, and with answers of the test's choice."""

    def __init__(self, wires, token=None, answers=None):
        super().__init__(wires=wires)
        if token is not None and answers is None:
            raise ValueError(f"the cloud refuses {token}")
        self.answers = answers

    @property
    def name(self):
        return "cloudy.qubit"

    def execute(self, circuits, execution_config=None):  # noqa: ARG002
        if isinstance(self.answers, Exception):
            raise self.answers
        return self.answers or tuple({"0" * len(circuit.measurements[0].wires): 10} for circuit in circuits)


class Entry:
    def load(self):
        return Cloud


@pytest.fixture
def cloud(monkeypatch):
    """A function: the device of a plugin, made with options."""
    monkeypatch.setitem(pennylane.plugin_devices, "cloudy.qubit", Entry())

    def make(**options):
        return load_device("pennylane", device="cloudy.qubit", num_qubits=2, **options)

    return make


def test_options_reach_the_device_and_its_counts_become_shares(cloud):
    device = cloud(options={"answers": ({"01": 3, "11": 1, "10": 0},)})
    assert run(device, [Circuit(2, ())], 4) == [{"01": 0.75, "11": 0.25}]


def test_unknown_devices_count_as_remote_and_sampling_unless_told(cloud):
    capabilities = cloud().capabilities()
    assert (capabilities.is_remote, capabilities.can_be_exact) == (True, False)
    assert (capabilities.simplifies_circuits, capabilities.chooses_qubits) == (True, True)
    with pytest.raises(ShotsError, match="use 'local'"):
        cloud().submit([Circuit(1, ())], None)
    capabilities = cloud(is_remote=False, can_be_exact=True).capabilities()
    assert (capabilities.is_remote, capabilities.can_be_exact) == (False, True)


def test_a_device_without_a_name_is_found_by_its_class():
    device = load_device("pennylane", device=f"{__name__}:Cloud", num_qubits=2)
    assert run(device, [Circuit(2, ())], 10) == [{"00": 1.0}]
    assert device.capabilities().is_remote


class Interleaving(Cloud):
    """A plugin that puts the answers to two halves of a batch together as they were not sent."""

    def execute(self, circuits, execution_config=None):  # noqa: ARG002
        answers = pennylane.execute(circuits, pennylane.device("default.qubit", wires=2), diff_method=None)
        return tuple(answers[place] for place in places(self.order, "job", len(answers)))

    order = "interleave"


@pytest.mark.parametrize("order", ["interleave", "reverse", "rotate"])
def test_a_plugin_that_mixes_up_its_answers_is_noticed(monkeypatch, order):
    monkeypatch.setattr(Interleaving, "order", order)
    circuits = [Circuit(2, (Operation("RY", (0,), 0.01 * n),)) for n in range(98)]
    device = load_device("pennylane", device=f"{__name__}:Interleaving", num_qubits=2)
    with pytest.raises(OrderError, match="2 circuits of known outcome"):
        run(device, circuits, 50)
    assert len(run(load_device("pennylane", device="default.qubit", num_qubits=2), circuits[:49], 50)) == 49


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("no_such_plugin:Device", "no_such_plugin cannot be imported.*installed"),
        ("qpeft.devices.local:LocalDevice", "not a class of PennyLane's devices"),
        ("qpeft.devices.local:Nothing", "not a class of PennyLane's devices"),
    ],
)
def test_a_class_that_is_no_device_is_an_error(device, message):
    with pytest.raises(DeviceError, match=message):
        load_device("pennylane", device=device, num_qubits=2)


def test_what_a_cloud_says_fails_the_job(cloud):
    device = cloud(options={"answers": RuntimeError("at most 100 shots")})
    job = device.submit([Circuit(1, ())], 10)
    status = device.poll(job)
    assert status.state is JobState.FAILED
    assert "at most 100 shots" in status.message
    with pytest.raises(JobError, match=job):
        device.fetch(job)


@pytest.mark.parametrize("answers", [({"00": 10},), ({"000": 10}, {"00": 10}), ({"00": 0}, {"00": 10})])
def test_malformed_answers_fail_the_job(cloud, answers):
    device = cloud(options={"answers": answers})
    job = device.submit([Circuit(2, ())] * 2, 10)
    assert device.poll(job).state is JobState.FAILED


def test_a_key_among_the_options_is_in_no_message(cloud):
    with pytest.raises(DeviceError, match=r"options \['token'\].*the cloud refuses \.\.\.") as caught:
        cloud(options={"token": KEY})
    assert KEY not in str(caught.value)
    assert caught.value.__cause__ is None


def test_an_unknown_device_is_an_error_that_names_the_nearest():
    with pytest.raises(DeviceError, match=r"no device 'default\.qbit'; did you mean 'default\.qubit'"):
        load_device("pennylane", device="default.qbit", num_qubits=2)
    with pytest.raises(DeviceError, match=r"no device 'zzz'; it has .*lightning\.qubit.*plugins"):
        load_device("pennylane", device="zzz", num_qubits=2)


def test_an_unknown_option_is_an_error_that_names_it():
    with pytest.raises(DeviceError, match=r"cannot make 'default.qubit'.*options \['noisy'\]"):
        load_device("pennylane", device="default.qubit", num_qubits=2, options={"noisy": True})


def test_no_qubits_are_refused():
    with pytest.raises(DeviceError, match="num_qubits=0"):
        load_device("pennylane", device="default.qubit", num_qubits=0)


def test_a_job_without_circuits_has_no_results(device):
    assert run(device, [], 10) == []
    job = device.submit([], 10)
    device.poll(job)
    assert device.fetch(job) == []


def test_it_knows_no_calibration_and_no_tickets(device):
    assert device.calibration() is None
    with pytest.raises(JobError, match="cannot tell"):
        device.find_job("a-ticket")

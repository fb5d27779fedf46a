"""Simulators by Qiskit: seeded, noisy as their calibration says, and honest about what they are."""

import numpy as np
import pytest

from qpeft.circuits import Circuit, Operation
from qpeft.devices import LocalDevice, load_device, run
from qpeft.errors import DeviceError, JobError, RefusedError, ShotsError

COIN = Circuit(1, (Operation("RY", (0,), 1.0),))


def native(*operations):
    """A circuit that the chip's own gates make one to one, so that each has its listed error and no more."""
    return Circuit(3, tuple(Operation(name, qubits, *angle) for name, qubits, *angle in operations))


NATIVE = [
    native(),
    native(("X", (0,)), ("X", (1,)), ("X", (2,))),
    native(("SX", (0,)), ("CNOT", (0, 1)), ("CNOT", (1, 2)), ("SX", (1,))),
    native(*[("SX", (0,)), ("CNOT", (0, 1)), ("CNOT", (1, 2))] * 6),
    native(("SX", (1,)), ("S", (1,)), ("RZ", (1,), 0.3), ("SX", (1,)), ("T", (1,)), ("PHASE", (1,), 0.2), ("SX", (1,))),
]


def test_samples_are_a_function_of_seed_and_job():
    one, other, third = (load_device("ibm", backend="aer", seed=seed) for seed in (4, 4, 5))
    first = run(one, [COIN, COIN], 1000)
    assert first == run(other, [COIN, COIN], 1000)
    again, elsewhere = run(one, [COIN, COIN], 1000), run(third, [COIN, COIN], 1000)
    assert len({result["0"] for result in (*first, *again, *elsewhere)}) > 3


def test_a_fake_errs_as_our_simulator_predicts_from_its_calibration():
    shots = 20_000
    fake = load_device("ibm", backend="FakeManilaV2", qubits=[0, 1, 2], optimization_level=0, seed=1)
    predicted = run(LocalDevice(num_qubits=3, noise=fake.calibration()), NATIVE, None)
    perfect = run(LocalDevice(num_qubits=3), NATIVE, None)
    for results in zip(run(fake, NATIVE, shots), predicted, perfect, strict=True):
        found, noisy, exact = (np.array([shares.get(f"{k:03b}", 0.0) for k in range(8)]) for shares in results)
        errors = 5 * np.sqrt(noisy * (1 - noisy) / shots) + 1 / shots
        assert (np.abs(found - noisy) < errors).all()
        assert (np.abs(found - exact) > 2 * errors).any()  # and it does err


def test_simulators_are_local_and_forget_their_jobs():
    for backend, num_qubits in (("FakeManilaV2", 5), ("fake_manila", 5)):
        capabilities = load_device("ibm", backend=backend).capabilities()
        assert (capabilities.is_remote, capabilities.keeps_jobs, capabilities.num_qubits) == (False, False, num_qubits)
    with pytest.raises(JobError, match="cannot tell"):
        load_device("ibm", backend="aer").find_job("a-ticket")


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        ("FakeTorin", "did you mean 'FakeTorino'"),
        ("fake-0123456789", r"Known: .*FakeTorino"),
        ("FakeProvider", "no fake"),
    ],
)
def test_an_unknown_fake_is_an_error_that_names_the_nearest(backend, message):
    with pytest.raises(DeviceError, match=message):
        load_device("ibm", backend=backend)


def test_too_many_samples_in_all_are_refused_saying_what_fits():
    device = load_device("ibm", backend="aer")
    with pytest.raises(RefusedError, match=r"10,000,000 samples; got 3 circuits of 4,000,000.*max_circuits=2"):
        device.submit([COIN] * 3, 4_000_000)
    with pytest.raises(ShotsError, match="at most 10,000,000 shots"):
        device.submit([COIN], 10_000_001)


@pytest.mark.parametrize("options", [{"max_circuits": 0}, {"optimization_level": 4}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(DeviceError, match="max_circuits is at least 1 and optimization_level from 0 to 3"):
        load_device("ibm", backend="aer", **options)


def test_options_of_the_sampler_reach_it():
    device = load_device("ibm", backend="aer", options={"no_such_option": 1})
    job = device.submit([COIN], 10)
    assert "no_such_option" in device.poll(job).message

"""Devices that the contract is tried on. A device joins by a fixture `<name>_contract` and its name in `CONTRACTS`."""

import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from qpeft.circuits import Circuit
from qpeft.devices import AbstractDevice, LocalDevice, load_device

# The dense matrices and random circuits that the simulator is tested with.
sys.path.append(str(Path(__file__).parents[1] / "simulation"))
# The emulator of Origin's cloud, and the stand-in for IBM's.
sys.path.append(str(Path(__file__).parent / "emulator"))
sys.path.append(str(Path(__file__).parent / "ibm"))

CONTRACTS = ["ibm", "ibm_service", "local", "origin", "pennylane"]
ORIGIN_KEY = "3041-of-the-tests"
NEEDED = {"ibm": "qiskit_ibm_runtime"}
"""Devices with a vendor's package that the test environment may lack. Their tests are under a folder of this name, or
are contracts of which it is the first word; without the package they are deselected, unless QPEFT_ALL_DEVICES is set,
as it is where all packages should be there: then they fail."""


def pytest_collection_modifyitems(config, items):
    if os.environ.get("QPEFT_ALL_DEVICES"):
        return
    missing = {device for device, package in NEEDED.items() if importlib.util.find_spec(package) is None}
    without = [item for item in items if _device(item) in missing]
    if without:
        config.hook.pytest_deselected(items=without)
        items[:] = [item for item in items if _device(item) not in missing]


def _device(item):
    """The device that a test is about, if it is one of those that may be missing."""
    if item.path.parent.name in NEEDED and item.path.parent.parent == Path(__file__).parent:
        return item.path.parent.name
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    return str(parameters.get("contract", "")).partition("_")[0]


@dataclass(frozen=True)
class Contract:
    """A device without noise, and what a test cannot know of it.

    Attributes:
        device: the device.
        unfinished_job: sends a circuit in a job that is not finished until it is polled or cancelled.
        shots: that are affordable per circuit.
        seconds_between_polls: for `run`.
    """

    device: AbstractDevice
    unfinished_job: Callable[[Circuit], str]
    shots: int = 4000
    seconds_between_polls: float = 0.01


@pytest.fixture(params=CONTRACTS)
def contract(request):
    return request.getfixturevalue(f"{request.param}_contract")


@pytest.fixture
def local_contract():
    device = LocalDevice(num_qubits=6, seed=1)
    return Contract(device, unfinished_job=lambda circuit: device.submit([circuit], 10))


@pytest.fixture
def pennylane_contract():
    device = load_device("pennylane", device="default.qubit", num_qubits=6, seed=1)
    return Contract(device, unfinished_job=lambda circuit: device.submit([circuit], 10))


@pytest.fixture
def ibm_contract():
    device = load_device("ibm", backend="aer", seed=1, max_circuits=20)
    return Contract(device, unfinished_job=lambda circuit: device.submit([circuit], 10))


@pytest.fixture
def ibm_service_contract(monkeypatch, tmp_path):
    import ibm_cloud

    ibm_cloud.install(monkeypatch.setattr, tmp_path)
    monkeypatch.setenv("QPEFT_IBM_TOKEN", ibm_cloud.KEY)
    device = load_device("ibm", backend=ibm_cloud.BACKEND)
    return Contract(device, unfinished_job=lambda circuit: device.submit([circuit], 10))


@pytest.fixture(scope="session")
def origin_cloud_of_session():
    from emulator_process import EmulatorThread

    with EmulatorThread(chip="perfect", seconds=0.02, api_key=ORIGIN_KEY) as cloud:
        yield cloud


@pytest.fixture(scope="session")
def origin_device_of_session(origin_cloud_of_session, tmp_path_factory):
    from qpeft.devices.origin import OriginDevice

    outbox = tmp_path_factory.mktemp("origin") / "outbox"
    device = OriginDevice(chip="perfect", url=origin_cloud_of_session.url, outbox=str(outbox))
    yield device
    device.close()


@pytest.fixture
def origin_cloud(origin_cloud_of_session, monkeypatch):
    """An emulator without faults, whose key is in the environment."""
    monkeypatch.setenv("QPEFT_ORIGIN_KEY", ORIGIN_KEY)
    origin_cloud_of_session.server.faults.clear()
    return origin_cloud_of_session


@pytest.fixture
def origin_device(origin_cloud, origin_device_of_session):
    """One device for all tests that leave it as it was: a worker takes a second to start."""
    return origin_device_of_session


@pytest.fixture
def origin_contract(origin_cloud, origin_device, monkeypatch):
    from qpeft_emulator.cloud import Timing

    def unfinished_job(circuit):
        monkeypatch.setattr(origin_cloud.server.cloud, "_timing", Timing(60, 60, 60))
        return origin_device.submit([circuit], 10)

    return Contract(origin_device, unfinished_job)


class CountingRunner:
    """Sends as `run_now` does, and remembers every batch, its key and the shots of each of its circuits."""

    def __init__(self):
        self.batches, self.keys, self.shots = [], [], []

    def __call__(self, device, circuits, shots, *, key):
        from qpeft.devices import run_now

        self.batches.append(list(circuits))
        self.keys.append(key)
        self.shots += [shots or 0] * len(circuits)
        return run_now(device, circuits, shots, key=key)

    @property
    def num_circuits(self):
        return sum(map(len, self.batches))


@pytest.fixture
def runner():
    return CountingRunner()

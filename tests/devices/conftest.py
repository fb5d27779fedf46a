"""Devices that the contract is tried on. A device joins by a fixture `<name>_contract` and its name in `CONTRACTS`."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from qpeft.circuits import Circuit
from qpeft.devices import AbstractDevice, LocalDevice, load_device

# The dense matrices and random circuits that the simulator is tested with.
sys.path.append(str(Path(__file__).parents[1] / "simulation"))

CONTRACTS = ["local", "pennylane"]


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


class CountingRunner:
    """Sends as `run_now` does, and remembers every batch and its key."""

    def __init__(self):
        self.batches, self.keys = [], []

    def __call__(self, device, circuits, shots, *, key):
        from qpeft.devices import run_now

        self.batches.append(list(circuits))
        self.keys.append(key)
        return run_now(device, circuits, shots, key=key)

    @property
    def num_circuits(self):
        return sum(map(len, self.batches))


@pytest.fixture
def runner():
    return CountingRunner()

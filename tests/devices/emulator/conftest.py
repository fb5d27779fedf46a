"""An emulator process to talk to, and dense matrices of tests/simulation to compare with."""

import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parents[2] / "simulation"), str(Path(__file__).parent)]

from emulator_process import EmulatorProcess  # noqa: E402


@pytest.fixture(scope="session")
def shared_emulator():
    """One perfect chip for all tests that leave it as it was."""
    with EmulatorProcess("--chip", "perfect", "--seconds", "0.03") as process:
        yield process


@pytest.fixture
def emulator(shared_emulator):
    """The shared process without any faults waiting."""
    shared_emulator.ask("DELETE", "/emulator/faults")
    return shared_emulator


@pytest.fixture
def start_emulator():
    """A function: a process with options of its own, which ends with the test."""
    started = []

    def start(*options):
        started.append(EmulatorProcess(*options).__enter__())
        return started[-1]

    yield start
    for process in started:
        process.__exit__(None, None, None)

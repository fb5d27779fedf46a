"""An emulator process to talk to, and dense matrices of tests/simulation to compare with."""

import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "simulation"))

from emulator_process import EmulatorProcess, EmulatorThread


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
    """A function: an emulator with options of its own, in a thread that ends with the test."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(EmulatorThread(**options))

import pytest
from fake_device import FakeDevice, rotation

from qpeft.devices import CallKey
from qpeft.devices.journal import Journal
from qpeft.devices.queue import JournalledRunner


@pytest.fixture
def journal(tmp_path):
    opened = Journal(tmp_path / "journal.sqlite")
    yield opened
    opened.close()


@pytest.fixture
def device(tmp_path):
    return FakeDevice(tmp_path / "store")


@pytest.fixture
def runner(journal):
    return JournalledRunner(journal, "run", seconds_between_polls=0.001)


@pytest.fixture
def circuits():
    """Six circuits, of which five are different."""
    return [rotation(angle) for angle in (0.0, 0.1, 0.2, 0.3, 0.4, 0.1)]


@pytest.fixture
def key():
    return CallKey("v_proj", step=3)

"""Emulators with options of their own, and devices for them."""

from contextlib import ExitStack

import pytest
from emulator_process import EmulatorThread

from qpeft.devices.origin import OriginDevice


@pytest.fixture
def start_cloud(monkeypatch):
    """A function: an emulator with these options, in a thread that ends with the test; its key is set."""
    with ExitStack() as stack:

        def start(key="another-key-77", **options):
            monkeypatch.setenv("QPEFT_ORIGIN_KEY", key)
            defaults = {"chip": "perfect", "seconds": 0.02}
            return stack.enter_context(EmulatorThread(**{**defaults, "api_key": key, **options}))

        yield start


@pytest.fixture
def make_device(tmp_path):
    """A function: a device for an emulator, closed with the test."""
    made = []

    def make(cloud, **options):
        url = cloud if isinstance(cloud, str) else cloud.url
        made.append(OriginDevice(**{"chip": "perfect", "url": url, "outbox": str(tmp_path / "outbox"), **options}))
        return made[-1]

    yield make
    for device in made:
        device.close()


@pytest.fixture
def no_pauses(monkeypatch):
    """Questions are asked again at once."""
    monkeypatch.setattr("qpeft.devices.origin.cloud.PAUSES", (0, 0, 0))

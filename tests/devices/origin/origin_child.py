"""What the killed processes of these tests do, importable by name."""

import multiprocessing
import os

from qpeft.circuits import Circuit, Operation
from qpeft.devices import CallKey, Journal, JournalledRunner
from qpeft.devices.origin import OriginDevice

# Forks of one process that has imported qpeft: each child starts in milliseconds.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["qpeft.devices.origin", "qpeft.devices.queue"])

CIRCUIT = Circuit(2, (Operation("X", (1,)),))


def device_for(folder, url):
    return OriginDevice(chip="perfect", url=url, outbox=str(folder / "outbox"))


def submit(folder, url, ticket, key):
    """One submission by a process that looked at the chip before, and says so by a file."""
    os.environ["QPEFT_ORIGIN_KEY"] = key  # a fork server has the environment of whoever used it first
    device = device_for(folder, url)
    device.capabilities()
    (folder / "ready").touch()
    device.submit([CIRCUIT], 10, ticket=ticket)


def journalled_run(folder, url, key):
    """One call by way of the journal; its results."""
    os.environ["QPEFT_ORIGIN_KEY"] = key
    device = device_for(folder, url)
    journal = Journal(folder / "journal.sqlite")
    runner = JournalledRunner(journal, "run", seconds_between_polls=0.01)
    try:
        return runner(device, [CIRCUIT], 10, key=CallKey("v_proj", step=0, call=0))
    finally:
        journal.close()
        device.close()

"""What the killed processes of these tests do, importable by name, and how to start them."""

import multiprocessing
import os
import signal

from fake_device import FakeDevice, rotation

from qpeft.devices import CallKey
from qpeft.devices.journal import Journal
from qpeft.devices.queue import JournalledRunner

SHOTS = 1000
# Forks of one process that has imported qpeft: each child starts in milliseconds.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["qpeft.devices.queue"])


def calls():
    """Three calls of six circuits, two of them equal: batches of four and one."""
    for step in range(3):
        yield CallKey("v_proj", step=step), [rotation(0.1 * n + step) for n in (0, 1, 2, 3, 4, 1)]


def whole_run(folder, **device_options):
    """Results of all calls, as one list; the run goes on from what the journal in the folder has."""
    device = FakeDevice(folder / "store", **device_options)
    journal = Journal(folder / "journal.sqlite")
    runner = JournalledRunner(journal, "run", seconds_between_polls=0.001)
    results = [one for key, circuits in calls() for one in runner(device, circuits, SHOTS, key=key)]
    journal.close()
    return results


def in_process(function, *arguments, **options):
    """Start it, and return the process."""
    process = PROCESSES.Process(target=function, args=arguments, kwargs=options)
    process.start()
    return process


def exit_code(function, *arguments, **options):
    process = in_process(function, *arguments, **options)
    process.join(60)
    return process.exitcode


def die_before_intention(folder):
    """Dies when all is planned and nothing is intended."""
    JournalledRunner.__call__.__globals__["Completion"].run = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    whole_run(folder)


def die_before_id_is_written(folder):
    """Dies between the device's answer and the journal."""
    Journal.submitted = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
    whole_run(folder)


def slow_run(folder):
    """With pauses, for a kill at any moment; a file says that it began."""
    (folder / "started").touch()
    whole_run(folder, polls=2, pause=0.01)

"""Questions to the cloud that cost nothing: asked again by another worker; and what a chip may be called."""

import os
import signal
import subprocess
import threading
import time

import pytest
from emulator_process import EmulatorThread

from qpeft.circuits import Circuit, Operation
from qpeft.devices import CallKey, Journal, JournalledRunner, load_device
from qpeft.devices.origin import cloud as clouds
from qpeft.devices.origin import list_chips
from qpeft.devices.origin.cloud import listed_as, written
from qpeft.errors import CredentialsError, DeviceError, RefusedError
from qpeft_emulator.cloud import Timing

FLIP = [Circuit(2, (Operation("X", (1,)),))]
RESULT = [{"01": pytest.approx(1)}]


def kill(device):
    os.kill(device._cloud._worker.pid, signal.SIGKILL)


def finished(device):
    job_id = device.submit(FLIP, 20)
    while not device.poll(job_id).state.is_final:
        time.sleep(0.01)
    return job_id


QUESTIONS = {
    "detail": lambda device, job_id: device.fetch(job_id),
    "resources": lambda device, _: device._cloud.chips(),
    "chip": lambda device, _: len(device.calibration().qubits),
    "cancel": lambda device, job_id: device.cancel(job_id),
}


@pytest.mark.parametrize("endpoint", QUESTIONS)
def test_a_worker_that_dies_over_a_question_is_replaced_and_the_question_asked_again(
    start_cloud, make_device, no_pauses, endpoint
):
    cloud = start_cloud()
    device = make_device(cloud)
    job_id = finished(device)
    expected = QUESTIONS[endpoint](device, job_id)
    first = device._cloud._worker.pid
    cloud.fault(kind="delay", endpoint=endpoint, seconds=1)
    threading.Timer(0.3, kill, (device,)).start()
    assert QUESTIONS[endpoint](device, job_id) == expected
    assert device._cloud._worker.pid != first
    assert cloud.stats()["jobs"] == 1


def test_a_training_call_survives_the_death_of_its_worker_while_its_job_waits(
    start_cloud, make_device, no_pauses, tmp_path
):
    cloud = start_cloud()
    device = make_device(cloud)
    device.capabilities()
    cloud.server.cloud._timing = Timing(0.1, 0.2, 1.2)
    journal = Journal(tmp_path / "journal.sqlite")
    threading.Timer(0.6, kill, (device,)).start()
    try:
        runner = JournalledRunner(journal, "run", seconds_between_polls=0.05)
        assert runner(device, FLIP, 20, key=CallKey()) == RESULT
    finally:
        journal.close()
    assert cloud.stats()["jobs"] == 1


def test_a_worker_that_was_killed_while_nobody_asked_it_takes_no_submission(start_cloud, make_device):
    cloud = start_cloud()
    device = make_device(cloud)
    device.capabilities()
    worker = device._cloud._worker
    kill(device)
    worker._process.wait(10)
    assert device.fetch(finished(device)) == RESULT
    assert cloud.stats()["jobs"] == 1


def test_questions_are_not_asked_for_ever_and_a_submission_only_once(start_cloud, make_device, monkeypatch):
    monkeypatch.setattr(clouds, "PAUSES", (0, 0))
    asked = []

    class Dying:
        pid, started, has_ended = 1, 0.0, False

        def __init__(self, *_):
            pass

        def ask(self, action, *_):
            asked.append(action)
            raise clouds.WorkerError(f"died during {action!r}")

        def close(self):
            pass

    device = make_device(start_cloud())
    device.capabilities()
    device.close()
    monkeypatch.setattr(clouds, "WorkerProcess", Dying)
    with pytest.raises(DeviceError, match="died during 'detail'"):
        device.poll("9A3F@2x1")
    with pytest.raises(DeviceError, match="died during 'submit'"):
        device.submit(FLIP, 20)
    assert asked == ["detail"] * 3 + ["submit"]


def test_a_worker_that_cannot_be_started_is_one_sentence(start_cloud, make_device, no_pauses, monkeypatch):
    device = make_device(start_cloud())

    def fails(*_, **__):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(subprocess, "Popen", fails)
    with pytest.raises(DeviceError, match=r"cannot be started: .*Cannot allocate memory"):
        device.poll("9A3F@2x1")


def test_a_question_that_reaches_nobody_does_not_say_that_nothing_was_sent(start_cloud, make_device, monkeypatch):
    monkeypatch.setattr(clouds, "PAUSES", ())
    with EmulatorThread(chip="perfect", api_key="k-1") as cloud:
        start_cloud("k-1")
        device = make_device(cloud)
        job_id = finished(device)
    for question in (lambda: device.poll(job_id), device.calibration):
        with pytest.raises(DeviceError, match="cannot be reached") as error:
            question()
        assert "sent" not in str(error.value)
        assert not isinstance(error.value, RefusedError | CredentialsError)


def test_a_refused_question_is_no_refused_submission(start_cloud, make_device):
    cloud = start_cloud()
    device = make_device(cloud)
    device.capabilities()
    cloud.fault(kind="refuse", endpoint="chip", message="calibration is not allowed now")
    with pytest.raises(DeviceError, match=r"calibration is not allowed now\.$") as error:
        device.calibration()
    assert not isinstance(error.value, RefusedError)


# Names of chips


@pytest.mark.parametrize("listed", ["72", "origin_wukong"])
@pytest.mark.parametrize("name", ["72", "origin_wukong", 72])
def test_wukong_may_be_written_either_way_whichever_the_cloud_lists(
    start_cloud, make_device, monkeypatch, listed, name
):
    cloud = start_cloud(chip="wukong")
    resources = cloud.server.cloud.resources
    monkeypatch.setattr(cloud.server.cloud, "resources", lambda: [{**resources()[0], "sinanChipId": listed}])
    device = make_device(cloud, chip=name)
    assert device.capabilities().num_qubits == 66
    assert len(device.fetch(finished(device))) == 1
    assert [chip.name for chip in list_chips(cloud.url)] == [listed]
    from_recipe = load_device(
        "origin", chip=name, url=cloud.url, outbox=str(cloud.server.cloud.machine.chip.num_qubits)
    )
    assert from_recipe._chip_name == str(name)


def test_names_are_listed_with_the_other_one_that_may_be_written():
    assert [written(name) for name in ("72", "origin_wukong", "WK_C180")] == [
        "72 (or origin_wukong)",
        "origin_wukong (or 72)",
        "WK_C180",
    ]
    assert listed_as("72", ["72", "origin_wukong"]) == "72"
    assert listed_as("WK_C180", ["72"]) is None


def test_an_unknown_chip_is_refused_with_all_names_that_may_be_written(start_cloud, make_device):
    device = make_device(start_cloud(chip="wukong"), chip="wukong")
    with pytest.raises(DeviceError, match=r"no chip 'wukong'; it has 72 \(or origin_wukong\)"):
        device.capabilities()

"""A submission whose sender dies: whether there is a job is known, unless the worker dies too."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest
from origin_child import CIRCUIT, PROCESSES, device_for, journalled_run, submit

from qpeft.devices import JobState
from qpeft.devices.origin import outbox as outboxes
from qpeft.devices.origin.outbox import HANDED_OVER, PREPARING, Outbox
from qpeft.devices.origin.worker import REFUSED, SENDING, SENT, UNCLEAR, write_note
from qpeft.errors import JobError, RefusedError

KEY = "key-of-a-child"


@pytest.fixture
def outbox(tmp_path):
    return Outbox(tmp_path / "outbox", patience=0.3)


@pytest.fixture
def dead():
    """Id and start time of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    started = psutil.Process(process.pid).create_time()
    process.communicate()
    return process.pid, started


@pytest.fixture
def alive():
    return os.getpid(), psutil.Process().create_time()


def note(outbox, state, process, **facts):
    outbox.prepare("t")
    outbox.hand_over("t", *process)
    known = json.loads(outbox.path("t").read_text())
    write_note(outbox.path("t"), {**known, "state": state, **facts}, outlives_power_cut=True)


@pytest.mark.parametrize("owner", ["dead", "alive"])
def test_what_is_over_is_known_whether_or_not_the_worker_lives(outbox, owner, request):
    owner = request.getfixturevalue(owner)
    note(outbox, SENT, owner, job="9A@2x1")
    assert outbox.find("t") == "9A@2x1"
    note(outbox, REFUSED, owner)
    assert outbox.find("t") is None
    note(outbox, UNCLEAR, owner, why="HTTP 503")
    with pytest.raises(JobError, match="HTTP 503"):
        outbox.find("t")


@pytest.mark.parametrize("state", [PREPARING, HANDED_OVER])
def test_what_a_dead_process_never_began_to_send_was_not_sent(outbox, state, dead):
    note(outbox, state, dead)
    assert outbox.find("t") is None


def test_a_sender_that_was_taken_for_dead_does_not_send_after_all(outbox, alive, monkeypatch):
    outbox.prepare("t")
    with monkeypatch.context() as patch:
        patch.setattr(outboxes, "is_alive", lambda _: False)
        assert outbox.find("t") is None
    with pytest.raises(RefusedError, match="given this submission up"):
        outbox.hand_over("t", *alive)


def test_a_worker_that_was_taken_for_dead_does_not_send_after_all(origin_cloud, make_device, monkeypatch):
    before, hand_over = origin_cloud.stats()["jobs"], Outbox.hand_over

    def then_given_up(outbox, ticket, *worker):
        path = hand_over(outbox, ticket, *worker)
        monkeypatch.setattr(outboxes, "is_alive", lambda _: False)
        assert outbox.find(ticket) is None
        return path

    monkeypatch.setattr(Outbox, "hand_over", then_given_up)
    with pytest.raises(RefusedError, match="given this submission up"):
        make_device(origin_cloud).submit([CIRCUIT], 10, ticket="t")
    assert origin_cloud.stats()["jobs"] == before


def test_what_a_dead_worker_was_sending_cannot_be_told(outbox, dead):
    note(outbox, SENDING, dead)
    with pytest.raises(JobError, match="worker died"):
        outbox.find("t")


@pytest.mark.parametrize("state", [PREPARING, HANDED_OVER, SENDING])
def test_what_is_under_way_is_waited_for_but_not_for_ever(outbox, state, alive):
    note(outbox, state, alive)
    with pytest.raises(JobError, match="still runs"):
        outbox.find("t")


def test_a_submission_handed_over_by_a_process_that_dies_meanwhile_is_not_taken_for_one_that_was_not(
    outbox, dead, alive, monkeypatch
):
    note(outbox, PREPARING, dead)

    def hand_over_just_before(owner):
        monkeypatch.undo()
        note(outbox, SENT, alive, job="9A@2x1")
        return False

    monkeypatch.setattr(outboxes, "is_alive", hand_over_just_before)
    assert outbox.find("t") == "9A@2x1"


def test_without_a_note_or_on_another_host_nothing_can_be_told(outbox, dead):
    with pytest.raises(JobError, match="no note"):
        outbox.find("t")
    note(outbox, HANDED_OVER, dead, owner=f"not-{socket.gethostname()} 1 1.0")
    with pytest.raises(JobError, match="only there"):
        outbox.find("t")
    outbox.path("t").write_text("{")
    with pytest.raises(JobError, match="cannot be read"):
        outbox.find("t")


def test_notes_are_kept_for_a_month(outbox, dead):
    note(outbox, SENT, dead, job="9A@2x1")
    outbox.prepare("another")
    outbox.remove_old()
    assert outbox.path("t").exists()
    long_ago = time.time() - 31 * 24 * 3600
    os.utime(outbox.path("t"), (long_ago, long_ago))
    outbox.remove_old()
    assert not outbox.path("t").exists()
    assert outbox.path("another").exists()


def test_other_files_of_the_folder_are_not_touched(outbox):
    long_ago = time.time() - 31 * 24 * 3600
    others = [outbox.folder / name for name in ("thesis.json", "notes", "abc.1")]
    for path in (*others, outbox.path("t"), outbox.path("t").with_suffix(".123")):
        path.mkdir(parents=True) if path.name == "notes" else path.parent.mkdir(exist_ok=True) or path.touch()
        os.utime(path, (long_ago, long_ago))
    outbox.remove_old()
    assert sorted(outbox.folder.iterdir()) == sorted(others)


def test_an_outbox_that_cannot_be_written_sends_nothing(tmp_path, origin_cloud, make_device):
    (tmp_path / "file").touch()
    before = origin_cloud.stats()["jobs"]
    with pytest.raises(RefusedError, match="nothing was sent"):
        make_device(origin_cloud, outbox=str(tmp_path / "file")).submit([CIRCUIT], 10, ticket="t")
    assert origin_cloud.stats()["jobs"] == before


def state_of(folder, ticket):
    path = Outbox(folder / "outbox").path(ticket)
    return json.loads(path.read_text())["state"] if path.exists() else "none"


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def killed_while(state, cloud, folder):
    """Kills a process whose submission is in this state at the cloud's slow door; the worker's id."""
    cloud.fault(kind="delay", endpoint="submit", seconds=0.7)
    child = PROCESSES.Process(target=submit, args=(folder, cloud.url, "t", KEY))
    child.start()
    wait_for((folder / "ready").exists)
    wait_for(lambda: state_of(folder, "t") == state)
    owner = json.loads(Outbox(folder / "outbox").path("t").read_text())["owner"]
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert child.exitcode == -signal.SIGKILL
    return int(owner.rsplit(" ", 2)[1])


def test_a_worker_finishes_the_submission_of_a_killed_process(start_cloud, tmp_path):
    cloud = start_cloud(KEY)
    killed_while(SENDING, cloud, tmp_path)
    device = device_for(tmp_path, cloud.url)
    job_id = device.find_job("t")
    wait_for(lambda: device.poll(job_id).state is JobState.FINISHED)
    assert device.fetch(job_id) == [{"01": pytest.approx(1)}]
    assert cloud.stats()["jobs"] == 1
    device.close()


def test_when_the_worker_is_killed_too_it_cannot_be_told(start_cloud, tmp_path):
    cloud = start_cloud(KEY)
    worker = psutil.Process(killed_while(SENDING, cloud, tmp_path))
    scratch = worker.cwd()
    worker.kill()
    shutil.rmtree(scratch)  # nobody is left to do it
    with pytest.raises(JobError, match="worker died"):
        device_for(tmp_path, cloud.url).find_job("t")


def test_a_worker_ends_when_its_parent_is_killed_and_leaves_nothing_behind(start_cloud, tmp_path):
    cloud = start_cloud(KEY)
    worker = psutil.Process(killed_while(SENDING, cloud, tmp_path))
    scratch = worker.cwd()
    worker.wait(30)
    assert not os.path.exists(scratch)


def test_a_late_answer_is_found_afterwards(start_cloud, make_device):
    cloud = start_cloud(KEY)
    device = make_device(cloud)
    device.capabilities()
    device._cloud.seconds_per_answer = 0.3
    cloud.fault(kind="delay", endpoint="submit", seconds=1)
    with pytest.raises(Exception, match="gave no answer"):
        device.submit([CIRCUIT], 10, ticket="t")
    device._cloud.seconds_per_answer = 20
    assert device.find_job("t") in [f"{job}@2x1" for job in cloud.stats()["per_job"]]
    assert cloud.stats()["jobs"] == 1


def test_a_journalled_run_goes_on_after_a_kill_in_its_submission_and_pays_once(start_cloud, tmp_path):
    cloud = start_cloud(KEY)
    cloud.fault(kind="delay", endpoint="submit", seconds=0.7)
    child = PROCESSES.Process(target=journalled_run, args=(tmp_path, cloud.url, KEY))
    child.start()
    wait_for(lambda: any("sending" in file.read_text() for file in (tmp_path / "outbox").glob("*.json")))
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert journalled_run(tmp_path, cloud.url, KEY) == [{"01": pytest.approx(1)}]
    assert cloud.stats()["jobs"] == 1

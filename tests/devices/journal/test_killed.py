"""A run killed at any moment and resumed gives what an undisturbed one gives, and nothing runs twice."""

import random
import signal
import time

import pytest
from fake_device import FakeDevice
from killed import die_before_id_is_written, die_before_intention, exit_code, in_process, slow_run, whole_run

from qpeft.devices.journal import BatchState, Journal
from qpeft.errors import JournalError

NUM_DIFFERENT = 15


@pytest.fixture
def undisturbed(tmp_path):
    folder = tmp_path / "undisturbed"
    folder.mkdir()
    return whole_run(folder)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "killed"
    folder.mkdir()
    return folder


def runs(folder):
    return FakeDevice(folder / "store").runs()


def assert_each_once(folder):
    assert len(runs(folder)) == NUM_DIFFERENT
    assert set(runs(folder).values()) == {1}


def settle(folder, state, job_id=None):
    """Settle the one batch that is left unclear."""
    journal = Journal(folder / "journal.sqlite")
    [batch] = journal.batches(state=BatchState.INTENDED)
    journal.settle(batch, state, message="test", job_id=job_id)
    journal.close()


@pytest.mark.parametrize("moment", [("poll", 1), ("poll", 3), ("fetch", 1), ("fetch", 2), ("fetch", 4)], ids=str)
def test_killed_after_the_call_goes_on_without_sending_twice(folder, undisturbed, moment):
    assert exit_code(whole_run, folder, die_at=moment) == -signal.SIGKILL
    assert whole_run(folder) == undisturbed
    assert_each_once(folder)


def test_killed_before_the_intention_sends_on_its_own(folder, undisturbed):
    assert exit_code(die_before_intention, folder) == -signal.SIGKILL
    assert runs(folder) == {}
    assert whole_run(folder) == undisturbed
    assert_each_once(folder)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_killed_inside_the_call_before_acceptance_stops_and_can_be_resubmitted(folder, undisturbed, number):
    assert exit_code(whole_run, folder, die_at=("before acceptance", number)) == -signal.SIGKILL
    sent = runs(folder)
    for _ in range(2):
        with pytest.raises(
            JournalError, match=rf"Batch {number} of run run.*qpeft jobs settle {number} --resubmit.*--lost"
        ):
            whole_run(folder)
    assert runs(folder) == sent
    settle(folder, BatchState.PLANNED)
    assert whole_run(folder) == undisturbed
    assert_each_once(folder)


@pytest.mark.parametrize("kill", ["accepted", "answered"])
def test_killed_inside_the_call_after_acceptance_stops_and_can_be_fetched_by_its_id(folder, undisturbed, kill):
    if kill == "accepted":
        assert exit_code(whole_run, folder, die_at=("after acceptance", 1)) == -signal.SIGKILL
    else:
        assert exit_code(die_before_id_is_written, folder) == -signal.SIGKILL
    with pytest.raises(JournalError, match="may or may not have a job"):
        whole_run(folder)
    settle(folder, BatchState.SUBMITTED, "job-0")
    assert whole_run(folder) == undisturbed
    assert_each_once(folder)


@pytest.mark.parametrize("moment", [("before acceptance", 2), ("after acceptance", 2)], ids=str)
def test_killed_inside_the_call_to_a_device_that_keeps_tickets_goes_on_by_itself(folder, undisturbed, moment):
    assert exit_code(whole_run, folder, die_at=moment, keeps_tickets=True) == -signal.SIGKILL
    assert whole_run(folder, keeps_tickets=True) == undisturbed
    assert_each_once(folder)


def test_what_is_at_the_device_is_fetched_before_an_unclear_batch_stops_the_run(folder):
    assert exit_code(whole_run, folder, die_at=("before acceptance", 2)) == -signal.SIGKILL
    with pytest.raises(JournalError, match="Batch 2"):
        whole_run(folder)
    journal = Journal(folder / "journal.sqlite")
    assert [batch.state for batch in journal.batches()] == [BatchState.FINISHED, BatchState.INTENDED]
    journal.close()


@pytest.mark.parametrize("seed", range(3))
def test_kills_at_random_moments(folder, undisturbed, seed):
    chance = random.Random(seed)
    kills = 0
    while (code := killed_after(folder, chance.uniform(0.0, 0.15))) != 0 and kills < 40:
        assert code == -signal.SIGKILL
        settle_as_the_device_says(folder)
        kills += 1
    assert kills > 0
    assert whole_run(folder) == undisturbed
    assert_each_once(folder)


def killed_after(folder, seconds):
    """Exit code of a run that is killed unless it is done by then."""
    (folder / "started").unlink(missing_ok=True)
    process = in_process(slow_run, folder)
    while not (folder / "started").exists():
        time.sleep(0.001)
    process.join(seconds)
    process.kill()
    process.join(60)
    return process.exitcode


def settle_as_the_device_says(folder):
    """As a user does who looks at the device's list of jobs."""
    if not (folder / "journal.sqlite").exists():
        return
    journal, jobs = Journal(folder / "journal.sqlite"), FakeDevice(folder / "store").jobs()
    known = {batch.job_id for batch in journal.batches()}
    unknown = [f"job-{number}" for number in range(len(jobs)) if f"job-{number}" not in known]
    unclear = journal.batches(state=BatchState.INTENDED)
    assert len(unknown) <= len(unclear) <= 1
    for batch in unclear:
        job_id = unknown[0] if unknown else None
        state = BatchState.SUBMITTED if unknown else BatchState.PLANNED
        journal.settle(batch, state, message="test", job_id=job_id)
    journal.close()


def test_two_processes_of_one_run_share_its_results(folder):
    first, second = (in_process(slow_run, folder) for _ in range(2))
    for process in (first, second):
        process.join(60)
        assert process.exitcode == 0
    whole_run(folder)
    assert_each_once(folder)


def test_a_process_waits_for_another_that_is_sending(folder):
    sender = in_process(hold_while_sending, folder)
    while not (folder / "sending").exists():
        time.sleep(0.01)
    waiter = in_process(whole_run, folder, max_circuits=8)
    time.sleep(0.2)
    assert waiter.is_alive()
    assert len(FakeDevice(folder / "store").jobs()) == 0
    (folder / "go on").touch()
    for process in (sender, waiter):
        process.join(60)
        assert process.exitcode == 0
    assert_each_once(folder)


def hold_while_sending(folder):
    """The first submission takes until the test lets it go on."""
    submit = FakeDevice.submit

    def held(device, circuits, shots, *, ticket):
        (folder / "sending").touch()
        while not (folder / "go on").exists():
            time.sleep(0.01)
        return submit(device, circuits, shots, ticket=ticket)

    FakeDevice.submit = held
    whole_run(folder, max_circuits=8)

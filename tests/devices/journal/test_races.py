"""Two processes of a run at one batch, and interrupts before an answer is written: no job is lost or paid for twice."""

import psutil
import pytest
from fake_device import FakeDevice

from qpeft.devices import Budget
from qpeft.devices.budget import Cost
from qpeft.devices.journal import BatchState, Journal
from qpeft.devices.journal import owner as owners
from qpeft.devices.queue import recover
from qpeft.errors import JournalError


@pytest.fixture
def device(tmp_path):
    """Takes all circuits of a call in one job."""
    return FakeDevice(tmp_path / "store", max_circuits=8, keeps_tickets=True)


def interrupt(*_, **__):
    raise KeyboardInterrupt


@pytest.fixture
def interrupted(journal, device, runner, circuits, key, monkeypatch):
    """The batch of a process that was interrupted before the device had the job."""
    with monkeypatch.context() as patch:
        patch.setattr(device, "submit", interrupt)
        with pytest.raises(KeyboardInterrupt):
            runner(device, circuits, 1000, key=key)
    return journal.batch(1)


def test_what_another_process_recovers_and_sends_meanwhile_is_left_to_it(journal, device, interrupted, monkeypatch):
    def while_the_other_sends(ticket):
        monkeypatch.undo()
        other = Journal(journal.path)
        recover(other, device, interrupted)
        assert other.intend(interrupted, Budget(), Cost(), ticket="of the other")
        other.close()
        assert device.find_job(ticket) is None

    monkeypatch.setattr(device, "find_job", while_the_other_sends)
    recover(journal, device, interrupted)
    batch = journal.batch(1)
    assert (batch.state, batch.ticket) == (BatchState.INTENDED, "of the other")
    assert journal.spent("run").circuits == 5


def test_a_sender_that_ends_between_two_looks_is_not_taken_for_dead(
    journal, device, runner, circuits, key, interrupted, monkeypatch
):
    device.keeps_tickets = False

    def ends_meanwhile(batch):
        monkeypatch.undo()
        assert journal.submitted(
            batch, device.submit([*dict.fromkeys(circuits)], 1000, ticket=batch.ticket), ticket=batch.ticket
        )
        return False

    monkeypatch.setattr(journal, "is_being_sent", ends_meanwhile)
    assert len(runner(device, circuits, 1000, key=key)) == len(circuits)
    assert set(device.runs().values()) == {1}


def test_a_job_whose_batch_was_settled_while_it_was_sent_is_named_and_not_sent_again(
    journal, device, runner, circuits, key, monkeypatch
):
    submit = device.submit

    def settled_meanwhile(*arguments, **options):
        monkeypatch.undo()
        journal.move(journal.batch(1), {BatchState.INTENDED}, BatchState.PLANNED, message="settled from another host")
        return submit(*arguments, **options)

    monkeypatch.setattr(device, "submit", settled_meanwhile)
    with pytest.raises(JournalError, match=r"as job job-0, but was settled"):
        runner(device, circuits, 1000, key=key)
    assert len(device.jobs()) == 1


def test_an_interrupt_and_then_a_full_disk_do_not_cost_the_id(journal, device, runner, circuits, key, monkeypatch):
    def full_disk(*_, **__):
        monkeypatch.setattr(Journal, "submitted", interrupt)
        raise JournalError("The disk is full.")

    def interrupted_first(*_, **__):
        monkeypatch.setattr(Journal, "submitted", full_disk)
        raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "submitted", interrupted_first)
    with pytest.raises(JournalError, match=r"settle 1 --job job-0"):
        runner(device, circuits, 1000, key=key)


def test_an_interrupt_just_after_the_id_is_written_changes_nothing(journal, device, runner, circuits, key, monkeypatch):
    submitted = Journal.submitted

    def interrupted_after(*arguments, **options):
        monkeypatch.undo()
        submitted(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "submitted", interrupted_after)
    with pytest.raises(KeyboardInterrupt):
        runner(device, circuits, 1000, key=key)
    assert journal.batch(1).state is BatchState.SUBMITTED
    assert len(runner(device, circuits, 1000, key=key)) == len(circuits)
    assert len(device.jobs()) == 1


def test_a_clock_that_is_set_does_not_make_a_process_take_itself_for_another(monkeypatch, tmp_path):
    owner = owners.this_process()
    start = psutil.Process().create_time()
    monkeypatch.setattr(psutil.Process, "create_time", lambda _: start + 1.0)
    assert not owners.is_sending(owner, tmp_path / "journal.sqlite", 1)
    with owners.sending(tmp_path / "journal.sqlite", 1):
        assert owners.is_sending(owner, tmp_path / "journal.sqlite", 1)


@pytest.mark.parametrize("was_accepted", [True, False])
def test_a_recovered_batch_counts_once_if_the_device_has_it_and_not_at_all_if_not(
    journal, device, runner, circuits, key, interrupted, was_accepted
):
    assert journal.spent("run").circuits == 5
    if was_accepted:
        device.submit([], 1000, ticket=interrupted.ticket)
    for _ in range(2):
        recover(journal, device, interrupted)
        assert journal.spent("run").circuits == (5 if was_accepted else 0)
    if not was_accepted:
        runner(device, circuits, 1000, key=key)
        assert (journal.spent("run").circuits, journal.spent("run").shots) == (5, 5000)

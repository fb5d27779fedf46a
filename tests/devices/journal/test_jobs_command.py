"""`qpeft jobs` as a user meets it."""

import json
import sys

import pytest
from fake_device import FakeDevice, rotation

from qpeft.devices import JobState, JobStatus, registry
from qpeft.devices.journal import BatchState, Journal
from qpeft.devices.queue import JournalledRunner
from qpeft.errors import DeviceError, JournalError, OrderError
from qpeft_cli.main import main


class Stored(FakeDevice):
    """As a registry makes it."""

    def __init__(self, *, store):
        super().__init__(store)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.sqlite"


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """A device that `qpeft jobs` can open by name."""
    monkeypatch.setitem(registry.DEVICES, "fake", f"{__name__}:Stored")
    return Stored(store=str(tmp_path / "store"))


@pytest.fixture
def jobs(monkeypatch, capsys, path):
    """A function: run `qpeft jobs` on the journal; (exit code, standard output, standard error)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["qpeft", "jobs", *map(str, arguments), "--journal", str(path)])
        monkeypatch.setenv("COLUMNS", "250")
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def started(path, stored, circuits, key, tmp_path):
    """A function: make the call with a device of which a method raises; then close the journal."""

    def start(method=None):
        journal = Journal(path)
        options = {"store": str(tmp_path / "store")}
        runner = JournalledRunner(journal, "my run", options=options, seconds_between_polls=0.001)
        if method is not None:
            setattr(stored, method, stop)
        try:
            return runner(stored, circuits, 1000, key=key)
        finally:
            stored.__dict__.pop(method, None)
            journal.close()

    return start


def stop(*_):
    raise DeviceError("the line is dead")


def states(path):
    journal = Journal(path)
    found = [batch.state for batch in journal.batches()]
    journal.close()
    return found


def test_list_show_sum_and_export_say_what_was_sent(jobs, started, circuits):
    results = started()
    code, out, _ = jobs("list", "--state", "finished", "--run", "my run")
    assert code == 0
    assert [line.split()[1] for line in out.splitlines() if "job-" in line] == ["1", "2"]
    assert "job-" not in jobs("list", "--run", "other")[1]
    _, out, _ = jobs("show", "1")
    assert [word for word in ("intended", "submitted", "finished") if word in out] == [
        "intended",
        "submitted",
        "finished",
    ]
    _, out, _ = jobs("sum")
    [row] = [line for line in out.splitlines() if "my run" in line]
    assert "5,000" in row
    rows = [json.loads(line) for line in jobs("export")[1].splitlines()]
    assert [row["distribution"] for row in rows] == results
    assert [row["number"] for row in rows] == list(range(len(circuits)))
    assert len({row["circuit"] for row in rows}) == 5


def test_export_writes_a_file(jobs, started, tmp_path):
    started()
    assert jobs("export", "--output", tmp_path / "rows.jsonl")[0] == 0
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 6


def test_resume_fetches_without_the_run_and_the_run_then_needs_no_device(jobs, started, path, monkeypatch):
    with pytest.raises(DeviceError, match="the line is dead"):
        started("poll")
    assert states(path) == [BatchState.SUBMITTED] * 2
    opened, load = [], registry.load_device
    monkeypatch.setattr(registry, "load_device", lambda name, **options: opened.append(name) or load(name, **options))
    code, out, _ = jobs("resume")
    assert opened == ["fake"]
    assert (code, out) == (0, "batch 1: finished\nbatch 2: finished\n")
    assert len(started("submit")) == 6
    assert "No batch is at a device" in jobs("resume")[1]


def test_resume_goes_on_after_a_batch_that_it_cannot_fetch(jobs, started, path):
    with pytest.raises(DeviceError):
        started("poll")
    assert jobs("settle", "1", "--job", "job-77")[0] == 0
    code, out, err = jobs("resume")
    assert code == 2
    assert "There is no job job-77" in out
    assert "1 of 2 batches" in err
    assert states(path) == [BatchState.SUBMITTED, BatchState.FINISHED]
    assert jobs("settle", "1", "--job", "job-0")[0] == 0
    assert len(started("submit")) == 6


def test_cancel_asks_the_device_and_writes_down_what_it_says(jobs, started, path, monkeypatch):
    with pytest.raises(DeviceError):
        started("poll")
    cancelled = []
    monkeypatch.setattr(Stored, "cancel", lambda _, job_id: cancelled.append(job_id))
    monkeypatch.setattr(Stored, "poll", lambda *_: JobStatus(JobState.CANCELLED, "as asked"))
    code, out, _ = jobs("cancel", "1")
    assert (code, out) == (0, "Batch 1: the device says cancelled. as asked\n")
    assert cancelled == ["job-0"]
    assert states(path) == [BatchState.CANCELLED, BatchState.SUBMITTED]
    assert "only what is at a device" in jobs("cancel", "1")[2]


@pytest.mark.parametrize(("option", "state"), [("--resubmit", BatchState.PLANNED), ("--lost", BatchState.LOST)])
def test_settle_decides_about_an_unclear_batch(jobs, started, path, option, state):
    with pytest.raises(JournalError, match="qpeft jobs settle 1 --resubmit"):
        started("submit")
    code, out, _ = jobs("settle", "1", option)
    assert (code, out) == (0, f"Batch 1 is now {state.value}.\n")
    assert states(path)[0] is state
    assert "settled by the user" in jobs("show", "1")[1]


def test_settle_wants_one_decision_and_an_existing_batch(jobs, started):
    started()
    for arguments in (["1"], ["1", "--lost", "--resubmit"], ["1", "--job", ""]):
        code, _, err = jobs("settle", *arguments)
        assert code == 2
        assert "exactly one of" in err
    assert "has no batch 7" in jobs("settle", "7", "--lost")[2]
    assert "nothing to settle" in jobs("settle", "1", "--lost")[2]


def test_a_missing_journal_is_an_error_and_makes_no_file(jobs, path):
    code, _, err = jobs("list")
    assert code == 2
    assert "no journal at" in err
    assert not path.exists()


def test_what_came_in_another_order_is_shown_and_exported_apart(jobs, path, tmp_path, key):
    device = FakeDevice(tmp_path / "store", max_circuits=200, answers_by_place=True, order="reverse")
    journal = Journal(path)
    runner = JournalledRunner(journal, "my run", seconds_between_polls=0.001)
    with pytest.raises(OrderError):
        runner(device, [rotation(0.01 * number) for number in range(49)], 1000, key=key)
    [place] = journal.markers(journal.batch(1))
    journal.close()
    _, out, err = jobs("show", 1)
    assert err == ""
    assert f"1 of the circuits have a known outcome, which shows the order: at places {place}" in out
    assert "not used, see `qpeft jobs export --rejected`" in out
    [kept] = map(json.loads, jobs("export", "--rejected")[1].splitlines())
    assert (kept["run"], kept["batch"], kept["job_id"]) == ("my run", 1, "job-0")
    assert kept["replies"] == [device.fetch("job-0")]
    assert len(jobs("export")[1].splitlines()) == 49
    assert jobs("list")[1].count(" 50 ") == 1
    assert "50,000" in jobs("sum")[1]

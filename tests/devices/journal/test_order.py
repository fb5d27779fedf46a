"""Results in another order through the journal: noticed, kept apart, paid for once; and older jobs without markers."""

import json
import signal
import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest
from fake_device import FakeDevice, rotation
from killed import exit_code

from qpeft.devices import JobState, JobStatus
from qpeft.devices.budget import Budget
from qpeft.devices.journal import BatchState, Journal
from qpeft.devices.journal.reports import history, rejected, rows
from qpeft.devices.queue import JournalledRunner
from qpeft.errors import BudgetError, CredentialsError, DeviceError, JobError, OrderError, RefusedError

CIRCUITS = [rotation(0.01 * number, 4) for number in range(60)]  # wide enough that none looks like a marker


@pytest.fixture
def marked(tmp_path):
    """A function: a device that says nothing of which circuit a result is of."""
    return lambda **options: FakeDevice(
        tmp_path / "store", **{"max_circuits": 200, "answers_by_place": True, **options}
    )


def test_markers_are_sent_paid_for_and_left_out_of_the_results(runner, journal, marked, tmp_path, key):
    plain = FakeDevice(tmp_path / "plain", max_circuits=200)
    device = marked()
    assert runner(device, CIRCUITS, 100, key=key) == runner(plain, CIRCUITS, 100, key=replace(key, step=4))
    [job] = device.jobs()
    [batch, _] = journal.batches()
    assert len(job["circuits"]) == batch.num_circuits == 61
    [(place, outcome)] = journal.markers(batch).items()
    assert job["results"][place] == {outcome: 1.0}
    assert (journal.spent("run").circuits, journal.spent("run").shots) == (121, 12_100)
    assert len(list(rows(journal))) == 120


def test_the_budget_counts_markers_before_anything_is_sent(journal, marked, key):
    device = marked()
    runner = JournalledRunner(journal, "run", budget=Budget(max_circuits=60))
    with pytest.raises(BudgetError, match="60: 0 spent, 61 asked"):
        runner(device, CIRCUITS, 100, key=key)
    assert device.jobs() == []


def test_a_full_job_with_its_markers_is_no_larger_than_the_device_takes(runner, journal, marked, key):
    device = marked(max_circuits=50)
    runner(device, CIRCUITS, 100, key=key)
    assert [len(job["circuits"]) for job in device.jobs()] == [50, 11]
    assert [len(journal.markers(batch)) for batch in journal.batches()] == [1, 0]


def test_the_same_call_of_another_run_sends_the_very_same_job(journal, marked, key):
    device = marked()
    for run in ("one", "two"):
        JournalledRunner(journal, run, seconds_between_polls=0.001)(device, CIRCUITS, 100, key=key)
    first, second = device.jobs()
    assert first["circuits"] == second["circuits"]


@pytest.mark.parametrize("order", ["reverse", "rotate", "halves", "shuffle"])
def test_another_order_is_an_error_what_came_is_kept_apart_and_the_right_one_is_taken_later(
    runner, journal, marked, key, order
):
    device = marked(order=order)
    for _ in range(2):
        with pytest.raises(OrderError) as error:
            runner(device, CIRCUITS, 100, key=key)
    for words in ("Batch 1 of run run", "job job-0", "Nothing of it is used", "--resume", "settle 1 --resubmit"):
        assert words in str(error.value)
    [batch] = journal.batches()
    assert batch.state is BatchState.SUBMITTED
    assert all(row["distribution"] is None for row in rows(journal))
    [kept] = rejected(journal)  # the same answer twice is kept once
    assert kept["replies"] == [device.fetch("job-0")]
    assert "1 circuits of known outcome" in kept["reason"]
    right = marked()
    assert runner(right, CIRCUITS, 100, key=key) == [one for one in right.fetch("job-0") if not is_marker(one)]
    assert len(device.jobs()) == 1


def is_marker(result):
    return list(result.values()) == [1.0]


def test_one_damaged_answer_that_was_kept_is_an_error(runner, journal, marked, key):
    with pytest.raises(OrderError):
        runner(marked(order="reverse"), CIRCUITS, 100, key=key)
    with closing(sqlite3.connect(journal.path)) as connection:
        connection.execute("UPDATE rejected SET replies = '[]'")
        connection.commit()
    with pytest.raises(DeviceError, match="differs from its checksum"):
        list(rejected(journal, run="run"))
    assert list(rejected(journal, run="other")) == []


def stop(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.parametrize("moment", ["submitted", "planned"])
def test_jobs_of_the_version_before_have_no_markers_and_are_resumed_as_they_are(
    runner, journal, marked, tmp_path, key, moment
):
    # As that version left it: no markers, and jobs as full as the device takes.
    device = FakeDevice(tmp_path / "store", max_circuits=60)
    setattr(device, "poll" if moment == "submitted" else "prepare", stop)
    with pytest.raises(KeyboardInterrupt):
        runner(device, CIRCUITS, 100, key=key)
    journal.close()
    with closing(sqlite3.connect(journal.path)) as connection:
        connection.execute("DROP TABLE rejected")
        connection.execute("ALTER TABLE circuits DROP COLUMN marker")
        connection.execute("PRAGMA user_version = 2")
        connection.commit()
    upgraded = Journal(journal.path)
    again = JournalledRunner(upgraded, "run", seconds_between_polls=0.001)
    newer = marked(max_circuits=60)
    results = again(newer, CIRCUITS, 100, key=key)
    [job] = newer.jobs()
    assert results == job["results"]
    assert not any(map(flipped_text, job["circuits"]))
    assert upgraded.spent("run").circuits == 60
    again(newer, CIRCUITS, 100, key=replace(key, step=9))
    assert [len(job["circuits"]) for job in newer.jobs()] == [60, 60, 1]
    upgraded.close()


def flipped_text(text):
    return "'X'" in text and "'RY'" not in text


def whole_marked_run(folder, **options):
    """Results of one call; importable by the processes that are killed."""
    device = FakeDevice(folder / "store", max_circuits=200, answers_by_place=True, **options)
    journal = Journal(folder / "journal.sqlite")
    from qpeft.devices import CallKey

    results = JournalledRunner(journal, "run", seconds_between_polls=0.001)(
        device, CIRCUITS, 100, key=CallKey("v_proj")
    )
    journal.close()
    return results


@pytest.mark.parametrize(
    "moment", [("poll", 1), ("fetch", 1), ("before acceptance", 1), ("after acceptance", 1)], ids=str
)
def test_a_killed_run_with_markers_ends_as_an_undisturbed_one(tmp_path, moment):
    for name in ("killed", "undisturbed"):
        (tmp_path / name).mkdir()
    undisturbed = whole_marked_run(tmp_path / "undisturbed")
    assert exit_code(whole_marked_run, tmp_path / "killed", die_at=moment, keeps_tickets=True) == -signal.SIGKILL
    assert whole_marked_run(tmp_path / "killed", keeps_tickets=True) == undisturbed
    jobs = [FakeDevice(tmp_path / name / "store").jobs() for name in ("killed", "undisturbed")]
    assert len(jobs[0]) == 1
    assert jobs[0][0]["circuits"] == jobs[1][0]["circuits"]


# Questions that are not answered


def failing(device, method, error, times):
    """The method raises so often, then works again."""
    left, real = [times], getattr(device, method)

    def maybe(*arguments):
        if left[0]:
            left[0] -= 1
            raise error
        return real(*arguments)

    setattr(device, method, maybe)


@pytest.mark.parametrize("method", ["poll", "fetch"])
def test_a_question_about_a_job_that_is_not_answered_is_asked_again(runner, device, circuits, key, method):
    failing(device, method, DeviceError("502 bad gateway"), times=3)
    assert len(runner(device, circuits, 1000, key=key)) == len(circuits)
    assert len(device.jobs()) == 2


def test_a_result_too_few_is_asked_for_again(runner, device, circuits, key, monkeypatch):
    fetch, answers = device.fetch, []

    def short_once(job_id):
        answers.append(job_id)
        return fetch(job_id)[: None if len(answers) > 1 else 1]

    monkeypatch.setattr(device, "fetch", short_once)
    assert len(runner(device, circuits, 1000, key=key)) == len(circuits)


@pytest.mark.parametrize("error", [DeviceError("502 bad gateway"), CredentialsError("the key has expired")])
def test_an_error_while_a_paid_job_waits_says_that_it_is_safe_and_how_to_go_on(
    runner, journal, device, circuits, key, error
):
    real = device.poll
    failing(device, "poll", error, times=10**6)
    with pytest.raises(type(error), match=str(error)) as raised:
        runner(device, circuits, 1000, key=key)
    for words in ("is safe", "job job-0 of batch 1, job job-1 of batch 2", "paid for twice", "`--resume`"):
        assert words in str(raised.value)
    assert "nothing was sent" not in str(raised.value).lower()
    device.poll = real
    assert len(runner(device, circuits, 1000, key=key)) == len(circuits)
    assert len(device.jobs()) == 2


def test_a_refused_second_job_says_that_the_first_is_safe(runner, device, circuits, key):
    submit = device.submit

    def refuse_the_second(*arguments, **options):
        if device.jobs():
            raise RefusedError("no credit left")
        return submit(*arguments, **options)

    device.submit = refuse_the_second
    with pytest.raises(RefusedError, match=r"no credit left.*job job-0 of batch 1\. Nothing is sent or paid for twice"):
        runner(device, circuits, 1000, key=key)


def test_what_ended_or_was_never_sent_is_not_called_safe(runner, device, circuits, key, tmp_path):
    device.submit = lambda *_, **__: (_ for _ in ()).throw(RefusedError("offline"))
    with pytest.raises(RefusedError) as refused:
        runner(device, circuits, 1000, key=key)
    gone = FakeDevice(tmp_path / "gone", fail=[0, 1])
    with pytest.raises(JobError) as failed:
        runner(gone, circuits, 1000, key=replace(key, step=8))
    forgetful = FakeDevice(tmp_path / "forgetful", keeps_jobs=False, is_remote=False)
    failing(forgetful, "poll", DeviceError("no line"), times=10**6)
    with pytest.raises(DeviceError, match="no line") as lost:
        runner(forgetful, circuits, 1000, key=replace(key, step=9))
    assert not any("is safe" in str(error.value) for error in (refused, failed, lost))


def test_a_job_that_the_device_reports_as_failed_is_not_asked_about_for_ever(runner, journal, device, circuits, key):
    device.poll = lambda _: JobStatus(JobState.FAILED, "cooling failed")
    with pytest.raises(JobError, match="cooling failed"):
        runner(device, circuits, 1000, key=key)
    assert [change.state for change in history(journal, journal.batch(1))] == ["intended", "submitted", "failed"]


def test_every_rejected_reply_is_a_line_of_json(runner, journal, marked, key):
    with pytest.raises(OrderError):
        runner(marked(order="reverse"), CIRCUITS, 100, key=key)
    assert json.loads(json.dumps(list(rejected(journal))))[0]["batch"] == 1

"""Jobs in memory: worked on once, whatever comes of it, and forgotten only with a message."""

import pytest

from qpeft.devices import JobState, memory_jobs
from qpeft.devices.memory_jobs import MemoryJobs
from qpeft.errors import JobError


class Work:
    """Counts its calls, and returns or raises what it was given."""

    def __init__(self, outcome):
        self.outcome, self.calls = outcome, 0

    def __call__(self):
        self.calls += 1
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


@pytest.fixture
def jobs():
    return MemoryJobs("cloudy")


def test_work_is_done_at_the_first_poll_and_once(jobs):
    work = Work([{"0": 1.0}])
    job = jobs.add(work)
    assert (job, work.calls) == ("cloudy-0", 0)
    assert [jobs.poll(job).state for _ in range(3)] == [JobState.FINISHED] * 3
    assert work.calls == 1


def test_an_error_fails_the_job_with_its_words_and_is_not_tried_again(jobs):
    work = Work(ValueError("no such qubit"))
    job = jobs.add(work)
    for _ in range(2):
        status = jobs.poll(job)
        assert (status.state, status.message) == (JobState.FAILED, "ValueError: no such qubit")
    assert work.calls == 1
    with pytest.raises(JobError, match=r"cloudy-0 is failed.*no such qubit"):
        jobs.fetch(job)


def test_an_interrupted_job_has_failed_and_is_not_sent_again(jobs):
    work = Work(KeyboardInterrupt())
    job = jobs.add(work)
    with pytest.raises(KeyboardInterrupt):
        jobs.poll(job)
    assert jobs.poll(job).message == "interrupted while it ran"
    assert work.calls == 1


def test_a_cancelled_job_never_runs(jobs):
    work = Work([])
    job = jobs.add(work)
    jobs.cancel(job)
    assert (jobs.poll(job).state, work.calls) == (JobState.CANCELLED, 0)


def test_results_beyond_those_kept_are_forgotten_with_a_message(jobs, monkeypatch):
    monkeypatch.setattr(memory_jobs, "KEPT_OUTCOMES", 3)
    names = [jobs.add(Work([{"0": 0.5, "1": 0.5}])) for _ in range(3)]
    for name in names:
        jobs.poll(name)
    with pytest.raises(JobError, match="forgotten job 'cloudy-1'"):
        jobs.fetch(names[1])
    assert jobs.fetch(names[2]) == [{"0": 0.5, "1": 0.5}]


@pytest.mark.parametrize("job_id", ["cloudy-1", "cloudy--1", "other-0", "0", ""])
def test_names_of_other_jobs_are_unknown(jobs, job_id):
    jobs.add(Work([]))
    with pytest.raises(JobError, match="cloudy has no job"):
        jobs.poll(job_id)


def test_a_key_in_an_error_is_not_passed_on():
    jobs = MemoryJobs("cloudy", secrets=["k3y-0f-t3sts", 3])
    assert jobs.poll(jobs.add(Work(ValueError("401 for k3y-0f-t3sts")))).message == "ValueError: 401 for ..."

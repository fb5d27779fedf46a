"""Jobs in the memory of this process, for devices whose vendor keeps none or hides their ids."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from qpeft.devices.protocol import Distribution, JobState, JobStatus
from qpeft.devices.secrets import redacted
from qpeft.errors import JobError

KEPT_OUTCOMES = 2**22
"""Bit strings whose results stay in memory, about 400 MB; older jobs are forgotten, and asking for one says so."""


@dataclass
class _Job:
    work: Callable[[], list[Distribution]] | None
    state: JobState = JobState.WAITING
    message: str = ""
    results: list[Distribution] = field(default_factory=list)


class MemoryJobs:
    """Jobs that run when they are first polled, once, whatever comes of it.

    Stands before `AbstractDevice` among the bases of a device, which then has `poll`, `fetch` and `cancel` from here.

    Args:
        device: name of the device, for ids and messages.
        secrets: that no message may hold.
    """

    def __init__(self, device: str, *, secrets: Iterable[object] = ()) -> None:
        self._prefix, self._secrets = device, tuple(secrets)
        self._jobs: list[_Job | None] = []
        self._finished: deque[int] = deque()
        self._kept_outcomes = 0

    def add(self, work: Callable[[], list[Distribution]]) -> str:
        """Keep `work` for the first poll. Returns: the id of the new job."""
        self._jobs.append(_Job(work))
        return f"{self._prefix}-{len(self._jobs) - 1}"

    def poll(self, job_id: str) -> JobStatus:
        """Return the state after the work was done, which happens here. An error of the work makes the job fail.

        Raises: JobError if the job is unknown; KeyboardInterrupt and its like, and the job has failed then.
        """
        number, job = self._find(job_id)
        if job.work is not None:
            # Taken away first: whatever goes wrong, what a vendor may have taken is not sent a second time.
            work, job.work = job.work, None
            job.state, job.message = JobState.FAILED, "interrupted while it ran"
            try:
                job.results = work()
            except Exception as error:  # vendors raise what they like
                job.message = redacted(error, self._secrets)[0]
            else:
                job.state, job.message = JobState.FINISHED, ""
                self._finished.append(number)
                self._kept_outcomes += sum(map(len, job.results))
                # The last one stays, however large it is: it has not been fetched yet.
                while self._kept_outcomes > KEPT_OUTCOMES and len(self._finished) > 1:
                    oldest = self._finished.popleft()
                    forgotten, self._jobs[oldest] = self._jobs[oldest], None
                    assert forgotten is not None
                    self._kept_outcomes -= sum(map(len, forgotten.results))
        return JobStatus(job.state, job.message)

    def fetch(self, job_id: str) -> list[Distribution]:
        """Return copies of the results. Raises: JobError if the job is unknown or not finished."""
        _, job = self._find(job_id)
        if job.state is not JobState.FINISHED:
            raise JobError(
                f"Job {job_id} is {job.state.value}, so it has no results"
                + (f": {job.message}." if job.message else "; poll it until it is finished.")
            )
        return [dict(result) for result in job.results]

    def cancel(self, job_id: str) -> None:
        """Never do the work; nothing happens if it is over. Raises: JobError if the job is unknown."""
        _, job = self._find(job_id)
        if job.work is not None:
            job.work, job.state = None, JobState.CANCELLED

    def _find(self, job_id: str) -> tuple[int, _Job]:
        # For an id of another kind, a number that no job has.
        prefix, _, digits = job_id.rpartition("-")
        number = int(digits) if prefix == self._prefix and digits.isdecimal() else len(self._jobs)
        if number >= len(self._jobs):
            raise JobError(f"{self._prefix} has no job {job_id!r}; jobs live as long as the object that took them.")
        job = self._jobs[number]
        if job is None:
            raise JobError(
                f"{self._prefix} has forgotten job {job_id!r}: it keeps the last {KEPT_OUTCOMES:,} bit strings that "
                "came out. Fetch sooner, or in smaller jobs."
            )
        return number, job

"""One call brought to its end: what is planned is sent, what is at the device is waited for, what came is written."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from qpeft.devices.jobs import collect, look, recover, send
from qpeft.devices.budget import Budget, Cost
from qpeft.devices.journal import Batch, BatchState, Journal, Request
from qpeft.devices.journal.owner import is_alive, is_this_process
from qpeft.devices.markers import marker_circuit
from qpeft.devices.protocol import AbstractDevice, JobState, check_request
from qpeft.errors import CredentialsError, DeviceError, JobError, JournalError, OrderError

FIRST_PAUSE = 0.02
SECONDS_BETWEEN_NOTES = 10.0
"""How often waiting time is written down while nothing else is."""
TROUBLED_PAUSES = (2.0, 8.0, 30.0)
"""Before a device that did not answer about a job is asked again, in longest pauses between questions."""
SHOWN_JOBS = 3
SENT = {BatchState.INTENDED, BatchState.SUBMITTED}
ENDED = {BatchState.FAILED, BatchState.CANCELLED}


@dataclass
class Completion:
    """The work on the unfinished batches of one call.

    Attributes:
        journal: where they stand.
        device: that runs them.
        request: with their circuits.
        budget: of the run.
        longest_pause: seconds between questions to the device, at most.
        sent_to: the object that has a batch, for devices whose jobs end with their process.
        failures: what failed, in words.
    """

    journal: Journal
    device: AbstractDevice
    request: Request
    budget: Budget
    longest_pause: float
    sent_to: dict[int, AbstractDevice]
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        capabilities = self.device.capabilities()
        self._keeps_jobs, self._is_remote = capabilities.keeps_jobs, capabilities.is_remote
        self._unanswered = 0  # questions in a row

    def run(self, batches: Sequence[Batch]) -> None:
        """Until every batch is finished.

        Raises: JobError, JournalError, BudgetError or what the device raises, as `JournalledRunner` says; what is at
            the device is fetched first where something else blocks the call. An error that leaves jobs at the device
            says that they are safe.
        """
        try:
            self._run(batches)
        except (JobError, OrderError):  # of a job that may not be safe, or says itself what to do
            raise
        except DeviceError as error:
            if self._keeps_jobs and (waiting := self._at_the_device(batches)):
                error.args = (f"{error} {_safe(waiting)}",)
            raise

    def _run(self, batches: Sequence[Batch]) -> None:
        clock = _Clock(self.journal, batches[0])
        batches = [self._ask_again(batch) if batch.state in ENDED else batch for batch in batches]
        blocked = [error for error in map(self._blocks, batches) if error is not None]
        batches = [self.journal.batch(batch.number) for batch in batches]
        if blocked:
            batches = [batch for batch in batches if batch.state is BatchState.SUBMITTED]
        else:
            self._send_planned(batches, clock)
        self._wait(batches, clock)
        # Not in a `finally`: what goes wrong above may be the disk, and its message must come through.
        clock.note()
        if blocked:
            raise blocked[0]
        if self.failures:
            raise JobError(
                f"{'; '.join(self.failures)}. Results of all other batches are kept. To send what failed again, start "
                "the run again."
            )

    def _at_the_device(self, batches: Sequence[Batch]) -> list[Batch]:
        try:
            now = [self.journal.batch(batch.number) for batch in batches]
        except JournalError:  # the error at hand may be that of the disk
            return []
        return [batch for batch in now if batch.state is BatchState.SUBMITTED]

    def _ask_again(self, batch: Batch) -> Batch:
        """A batch that ended without results, as it is to be gone on with."""
        state, message = BatchState.PLANNED, f"sent again after it was {batch.state.value}"
        if batch.job_id is not None and self._keeps_jobs:
            # Some clouds call a job failed when only the answer was (a wrong key, for one); it may be fetched now.
            status = look(self.device, batch)
            if status.state is JobState.FINISHED or not status.state.is_final:
                state, message = BatchState.SUBMITTED, f"the device now says {status.state.value}"
        self.journal.move(batch, {batch.state}, state, message=message)
        return self.journal.batch(batch.number)

    def _blocks(self, batch: Batch) -> Exception | None:
        """Why nothing more of the call can be sent, if it is because of this batch; one that can be, is recovered."""
        if batch.state is BatchState.LOST:
            return JobError(
                f"{batch} was settled as lost, so this call cannot be answered. To send it again after all: "
                f"`qpeft jobs settle {batch.number} --resubmit`."
            )
        if self._keeps_jobs and self._was_left(batch):
            try:
                recover(self.journal, self.device, batch)
            except JournalError as error:
                return error
        return None

    def _was_left(self, batch: Batch) -> bool:
        """Whether the sender of a batch died in the call."""
        if batch.state is not BatchState.INTENDED or self.journal.is_being_sent(batch):
            return False
        # Read again: the sender may have come to its end, and another begun, after the batch was read.
        now = self.journal.batch(batch.number)
        return now.state is BatchState.INTENDED and now.ticket == batch.ticket

    def _send_planned(self, batches: Sequence[Batch], clock: _Clock) -> None:
        planned = [batch for batch in batches if batch.state is BatchState.PLANNED]
        for number, batch in enumerate(planned):
            clock.note(at_least=1.0)
            # All that is still to come, so that a call that does not fit costs nothing.
            self._send(batch, asked=sum((later.cost for later in planned[number:]), Cost()))

    def _send(self, batch: Batch, *, asked: Cost) -> None:
        known = self.journal.markers(batch)
        circuits = [
            marker_circuit(known[place]) if place in known else self.request.circuits[content]
            for place, (content, _) in enumerate(self.journal.circuits(batch))
        ]
        # Before the intention, since afterwards an error of the device may mean that a job exists.
        check_request(self.device.capabilities(), circuits, batch.shots)
        if send(self.journal, self.device, batch, circuits, budget=self.budget, asked=asked):
            self.sent_to[batch.number] = self.device

    def _wait(self, batches: Sequence[Batch], clock: _Clock) -> None:
        pause = min(FIRST_PAUSE, self.longest_pause)
        while batches := [batch for batch in batches if not self._is_over(self.journal.batch(batch.number))]:
            clock.note(at_least=SECONDS_BETWEEN_NOTES)
            time.sleep(pause)
            pause = min(1.5 * pause, self.longest_pause)

    def _is_over(self, batch: Batch) -> bool:
        """Whether a batch is over, after the one step that it can be taken forward now."""
        if batch.state in SENT and not self._keeps_jobs and self.sent_to.get(batch.number) is not self.device:
            return self._is_over_elsewhere(batch)
        error = self._blocks(batch)
        if error is not None:
            raise error
        batch = self.journal.batch(batch.number)
        if batch.state is BatchState.PLANNED:  # another process was to send it, and was refused
            self._send(batch, asked=batch.cost)
        elif batch.state is BatchState.SUBMITTED:
            self._collect(batch)
            batch = self.journal.batch(batch.number)
        if batch.state in ENDED:
            self.failures.append(f"{batch}, job {batch.job_id}, {batch.state.value}: {batch.message or 'no reason'}")
        if batch.state in ENDED | {BatchState.FINISHED}:
            self.sent_to.pop(batch.number, None)
            return True
        return False

    def _collect(self, batch: Batch) -> None:
        """Ask after a batch, and again where the device only failed to answer: the job itself is none the worse."""
        while not self._is_answered(batch):
            time.sleep(TROUBLED_PAUSES[self._unanswered - 1] * self.longest_pause)

    def _is_answered(self, batch: Batch) -> bool:
        """Raises: what will not be otherwise when asked again; anything, after as many questions as have pauses."""
        try:
            collect(self.journal, self.device, batch)
        except DeviceError as error:
            is_final = isinstance(error, (JobError, CredentialsError, JournalError, OrderError))
            if is_final or not self._keeps_jobs or self._unanswered == len(TROUBLED_PAUSES):
                raise
            self._unanswered += 1
            return False
        self._unanswered = 0
        return True

    def _is_over_elsewhere(self, batch: Batch) -> bool:
        """For a job in the memory of a process: wait while that is another one that lives; else plan it anew.

        Raises: JournalError if it may have been paid for, since only the user can decide to do so again.
        """
        if not is_this_process(batch.owner) and is_alive(batch.owner):
            return False
        if self._is_remote:
            raise JournalError(
                f"{batch} was with a process that ended or was interrupted; {batch.device} shows no job ids, so its "
                "results cannot be fetched, and they may be paid for. To send it again: `qpeft jobs settle "
                f"{batch.number} --resubmit`; the journal is {self.journal.path}."
            )
        self.journal.move(batch, SENT, BatchState.PLANNED, message="its job ended with the process that had it")
        return False


def _safe(waiting: Sequence[Batch]) -> str:
    names = ", ".join(f"job {batch.job_id} of batch {batch.number}" for batch in waiting[:SHOWN_JOBS])
    more = f" and {len(waiting) - SHOWN_JOBS} more" if len(waiting) > SHOWN_JOBS else ""
    return (
        f"What is at the device is safe: the journal has {names}{more}. Nothing is sent or paid for twice: the same "
        "training command with `--resume` goes on from there, and `qpeft jobs resume` fetches it without the run."
    )


class _Clock:
    """Writes down the time since it was last asked."""

    def __init__(self, journal: Journal, batch: Batch, now: Callable[[], float] = time.monotonic) -> None:
        self._journal, self._batch, self._now, self._last = journal, batch, now, now()

    def note(self, *, at_least: float = 0.0) -> None:
        passed = self._now() - self._last
        if passed >= at_least:
            self._journal.add_seconds(self._batch, passed)
            self._last += passed

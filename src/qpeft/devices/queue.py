"""Circuits through a device by way of the journal: what was paid for once is never sent again."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from qpeft.circuits import Circuit
from qpeft.devices.budget import Budget, Cost
from qpeft.devices.journal import Batch, BatchState, Journal, Request
from qpeft.devices.journal.owner import is_alive, is_this_process, sending
from qpeft.devices.journal.records import hash_calibration
from qpeft.devices.markers import check_order, marker_circuit
from qpeft.devices.protocol import (
    AbstractDevice,
    CallKey,
    Distribution,
    JobState,
    JobStatus,
    check_request,
    check_results,
    device_shots,
)
from qpeft.errors import CredentialsError, DeviceError, JobError, JournalError, OrderError, RefusedError

NO_LIMITS = Budget()


class JournalledRunner:
    """Runs the calls of one run; safe to interrupt at any moment and to resume in any process with the same journal.

        results = runner(device, circuits, shots, key=CallKey("layers.29.v_proj", step=3, call=0))

    Equal circuits of one call are sent once. A key that was answered before is answered from the journal; one that was
    interrupted goes on where it stopped. A batch that failed or was cancelled is asked about once more, and then sent
    again, when its call is made again.

    Args:
        journal: where everything is written down.
        run_id: of the run that pays; the same after a resume.
        budget: limits of the run, held against what the journal says it has spent.
        options: of the device, as in the recipe, and no secrets: they tell results apart, and `qpeft jobs` opens the
            device with them.
        seconds_between_polls: longest pause between questions to the device; it starts shorter.
        cache: take results of equal circuits from other calls and runs, if device, options, shots and calibration are
            the same. Off by default: what should be independent samples would be the same ones.
        seconds_per_calibration: with `cache`, for how long the device's word about its calibration is taken.
    """

    def __init__(
        self,
        journal: Journal,
        run_id: str,
        *,
        budget: Budget = NO_LIMITS,
        options: Mapping[str, object] | None = None,
        seconds_between_polls: float = 1.0,
        cache: bool = False,
        seconds_per_calibration: float = 300.0,
    ) -> None:
        self._journal, self._run_id, self._budget = journal, run_id, budget
        self._options = dict(options or {})
        self._longest_pause = seconds_between_polls
        self._cache, self._seconds_per_calibration = cache, seconds_per_calibration
        self._calibrations: dict[AbstractDevice, tuple[float, str]] = {}
        self._sent_to: dict[int, AbstractDevice] = {}

    def __call__(
        self, device: AbstractDevice, circuits: Sequence[Circuit], shots: int | None, *, key: CallKey
    ) -> list[Distribution]:
        """Run the circuits, or answer from the journal.

        Args:
            device: that runs them.
            circuits: bound; as many as there are, since they are split into jobs here.
            shots: per circuit; None for exact.
            key: names the call within the run.

        Returns:
            One distribution per circuit, in their order.

        Raises:
            ShotsError: the device takes no such number of shots; nothing was sent.
            BudgetError: what is left of the call does not fit into the budget; nothing more was sent.
            JobError: a job failed, was cancelled or is lost; results of the other batches are kept.
            JournalError: the key came with other circuits before, the user must settle a batch, or the file fails.
            DeviceError: the device cannot run these circuits, or its results do not fit them.
        """
        capabilities = device.capabilities()
        request = Request.of(capabilities.name, self._options, circuits, device_shots(capabilities, shots))
        call_id = self._journal.find(self._run_id, key, request)
        if call_id is None:
            call_id = self._plan(device, circuits, request, key)
        batches = self._journal.unfinished(call_id)
        if batches:
            completion = Completion(self._journal, device, request, self._budget, self._longest_pause, self._sent_to)
            completion.run(batches)
        results = self._journal.results(call_id)
        if len(results) != len(circuits):
            raise JournalError(
                f"The journal {self._journal.path} has {len(results)} results for {len(circuits)} circuits ({key})."
            )
        return results

    def _plan(self, device: AbstractDevice, circuits: Sequence[Circuit], request: Request, key: CallKey) -> int:
        capabilities = device.capabilities()
        check_request(replace(capabilities, max_circuits=None), circuits, request.shots)
        size = capabilities.circuits_per_job or max(1, len(circuits))
        calibration = self._calibration(device) if self._cache else None
        return self._journal.plan(self._run_id, key, request, size, calibration, marked=capabilities.answers_by_place)

    def _calibration(self, device: AbstractDevice) -> str:
        known = self._calibrations.get(device)
        if known is None or time.monotonic() - known[0] > self._seconds_per_calibration:
            found = hash_calibration(device.calibration())
            if found is None:
                raise DeviceError(
                    f"{device.capabilities().name} has no calibration, so nobody can tell for how long its results "
                    "hold; use it with cache=False."
                )
            self._calibrations[device] = known = (time.monotonic(), found)
        return known[1]


# One call brought to its end: what is planned is sent, what is at the device is waited for, what came is written.


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


# The steps of a journalled job that need the device: send, look after it, bring its results home, cancel it.


IN_HAND = {BatchState.SUBMITTED}
ENDED_STATES = {JobState.FAILED: BatchState.FAILED, JobState.CANCELLED: BatchState.CANCELLED}


def send(
    journal: Journal, device: AbstractDevice, batch: Batch, circuits: Sequence[Circuit], *, budget: Budget, asked: Cost
) -> bool:
    """Submit a planned batch: intention first, then the call, then the job id. False if another process was faster.

    Raises: BudgetError before anything is sent; RefusedError or CredentialsError from the device, and the batch stays
        planned; JournalError if the call went wrong in any other way, since a job may exist.
    """
    keeps_jobs = device.capabilities().keeps_jobs
    ticket = uuid.uuid4().hex
    device.prepare(ticket)
    with sending(journal.path, batch.number):
        if not journal.intend(batch, budget, asked, ticket=ticket):
            return False
        try:
            job_id = device.submit(circuits, batch.shots, ticket=ticket)
            if not job_id:
                raise JobError(f"{batch.device} took a job and gave it no id.")
        except (RefusedError, CredentialsError) as error:
            journal.refused(batch, str(error), ticket=ticket)
            raise
        except BaseException as error:
            _note_doubt(journal, batch, error, ticket=ticket, may_exist=keeps_jobs)
            raise
        _note_id(journal, batch, job_id, ticket=ticket)
    return True


def _note_doubt(journal: Journal, batch: Batch, error: BaseException, *, ticket: str, may_exist: bool) -> None:
    if not may_exist:
        journal.refused(batch, str(error), ticket=ticket)
        return
    journal.unclear(batch, f"{type(error).__name__}: {error}", ticket=ticket)
    if isinstance(error, Exception):
        raise JournalError(f"{ambiguity(journal, batch)} The device's error: {error}") from error


def _note_id(journal: Journal, batch: Batch, job_id: str, *, ticket: str) -> None:
    try:
        is_noted = journal.submitted(batch, job_id, ticket=ticket)
    except JournalError as error:
        raise JournalError(
            f"{error} {batch} is at the device as job {job_id}. End this process, and once the journal can be written "
            f"say `qpeft jobs settle {batch.number} --job {job_id}`; nothing is lost then."
        ) from error
    except (KeyboardInterrupt, SystemExit):
        # An interrupt in just this moment must not cost the id.
        _note_id(journal, batch, job_id, ticket=ticket)
        raise
    if not is_noted:
        raise JournalError(
            f"{batch} is at the device as job {job_id}, but was settled or sent by somebody else while this process "
            f"sent it, so the journal {journal.path} does not have that job; `qpeft jobs show {batch.number}` shows "
            "what it has. Cancel one of the two at the device, or both are paid for."
        )


def recover(journal: Journal, device: AbstractDevice, batch: Batch) -> None:
    """Find out what became of a batch whose sender died in the call: then it is submitted, or planned again.

    Raises: JournalError if the device cannot tell, saying what the user can do.
    """
    try:
        if batch.ticket is None:
            raise JobError(f"{batch.device} was given no ticket for it.")
        job_id = device.find_job(batch.ticket)
    except JobError as error:
        raise JournalError(f"{ambiguity(journal, batch)} {error}") from error
    # By ticket: another process may have recovered the batch and be sending it again by now.
    if job_id is None:
        journal.refused(batch, "the device has no job for it", ticket=batch.ticket)
    else:
        journal.submitted(batch, job_id, ticket=batch.ticket)


def look(device: AbstractDevice, batch: Batch) -> JobStatus:
    """State of a submitted batch at its device. Raises: JobError if the device does not know it, saying what to do."""
    assert batch.job_id is not None
    try:
        return device.poll(batch.job_id)
    except JobError as error:
        raise JobError(f"{batch}, job {batch.job_id}: {error} If it is gone for good: {ways_out(batch)}.") from error


def collect(journal: Journal, device: AbstractDevice, batch: Batch) -> JobStatus:
    """Ask after a submitted batch, and write its results down, or that it failed, if it is over.

    Raises: JobError or DeviceError from the device; OrderError if results are not in the order of their circuits, and
        what came is kept apart. The batch then stays submitted, and can be collected again.
    """
    status = look(device, batch)
    if status.state is JobState.FINISHED:
        assert batch.job_id is not None
        try:
            distributions = device.fetch(batch.job_id)
            check_results([Circuit(num_qubits, ()) for _, num_qubits in journal.circuits(batch)], distributions)
            check_order(journal.markers(batch), distributions, batch.shots)
        except OrderError as error:
            journal.reject(batch, str(error), error.replies)
            raise OrderError(
                f"{batch}, job {batch.job_id}: {error} Nothing of it is used. What came is paid for and kept in the "
                f"journal {journal.path} (`qpeft jobs export --rejected`), and the job can be asked for again: start "
                f"once more, for a training run with `--resume`. If it stays so: {ways_out(batch)}.",
                error.replies,
            ) from error
        journal.finish(batch, distributions)
    elif status.state.is_final:
        journal.move(batch, IN_HAND, ENDED_STATES[status.state], message=status.message)
    return status


def cancel(journal: Journal, device: AbstractDevice, batch: Batch) -> JobStatus:
    """Ask the device to stop a submitted batch, and write down what became of it."""
    assert batch.job_id is not None
    device.cancel(batch.job_id)
    return collect(journal, device, batch)


def ambiguity(journal: Journal, batch: Batch) -> str:
    """That a batch may or may not have been accepted, and what the user can do."""
    return (
        f"{batch} was being sent when that was interrupted, so the device may or may not have a job for it; it is not "
        f"sent again on its own. Look at the device's own list of jobs, then say {ways_out(batch)}; the journal is "
        f"{journal.path}."
    )


def ways_out(batch: Batch) -> str:
    """The commands that settle a batch."""
    return (
        f"`qpeft jobs settle {batch.number} --resubmit` (send it again), `--lost` (give its results up), or, if the "
        "job is found there, `--job ID`"
    )

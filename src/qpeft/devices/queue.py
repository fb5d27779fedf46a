"""Circuits through a device by way of the journal: what was paid for once is never sent again."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
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
FIRST_PAUSE = 0.02
"""Seconds before the first question about a job; pauses then grow by half each."""
SECONDS_BETWEEN_NOTES = 10.0
"""Between two notes of waiting time."""
TROUBLED_PAUSES = (2.0, 8.0, 30.0)
"""Before a device that did not answer about a job is asked again, in longest pauses between questions."""
SHOWN_JOBS = 3
SENT = {BatchState.INTENDED, BatchState.SUBMITTED}
ENDED = {JobState.FAILED: BatchState.FAILED, JobState.CANCELLED: BatchState.CANCELLED}


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
            # Without the limit of a job: there are as many jobs as are needed.
            check_request(replace(capabilities, max_circuits=None), circuits, request.shots)
            call_id = self._journal.plan(
                self._run_id,
                key,
                request,
                capabilities.circuits_per_job or max(1, len(circuits)),
                self._calibration(device) if self._cache else None,
                marked=capabilities.answers_by_place,
            )
        # Nothing is left to do where the call was answered before, or the cache has all.
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

    def _calibration(self, device: AbstractDevice) -> str:
        """Return the hash of the device's calibration. Raises: DeviceError if it has none."""
        known = self._calibrations.get(device)
        # Asking costs a cloud's answer, so not in every call of a training step.
        if known is None or time.monotonic() - known[0] > self._seconds_per_calibration:
            found = hash_calibration(device.calibration())
            if found is None:
                raise DeviceError(
                    f"{device.capabilities().name} has no calibration, so nobody can tell for how long its results "
                    "hold; use it with cache=False."
                )
            self._calibrations[device] = known = (time.monotonic(), found)
        return known[1]


@dataclass
class Completion:
    """Brings one call to its end: what is planned is sent, what is at the device is awaited, what came is written.

    Attributes:
        journal: where the batches of the call stand.
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
        self._noted_at = time.monotonic()

    def run(self, batches: Sequence[Batch]) -> None:
        """Go on until every batch is finished.

        Raises: JobError, JournalError, BudgetError or what the device raises, as `JournalledRunner` says; what is at
            the device is fetched first where something else blocks the call. An error that leaves jobs at the device
            says that they are safe.
        """
        try:
            self._run(batches)
        except (JobError, OrderError):  # of a job that may not be safe, or says itself what to do
            raise
        except DeviceError as error:
            try:
                now = [self.journal.batch(batch.number) for batch in batches]
            except JournalError:  # the error at hand may be that of the disk
                now = []
            waiting = [batch for batch in now if batch.state is BatchState.SUBMITTED]
            if self._keeps_jobs and waiting:
                names = ", ".join(f"job {batch.job_id} of batch {batch.number}" for batch in waiting[:SHOWN_JOBS])
                more = f" and {len(waiting) - SHOWN_JOBS} more" if len(waiting) > SHOWN_JOBS else ""
                safe = (
                    f"What is at the device is safe: the journal has {names}{more}. Nothing is sent or paid for twice: "
                    "the same training command with `--resume` goes on from there, and `qpeft jobs resume` fetches it "
                    "without the run."
                )
                error.args = (f"{error} {safe}",)
            raise

    def _run(self, batches: Sequence[Batch]) -> None:
        payer = batches[0]  # whose run the waiting time is charged to
        self._noted_at = time.monotonic()
        for batch in (one for one in batches if one.state in ENDED.values()):
            state, message = BatchState.PLANNED, f"sent again after it was {batch.state.value}"
            if batch.job_id is not None and self._keeps_jobs:
                # Some clouds call a job failed when only the answer was (a wrong key, for one); it may be fetched now.
                status = look(self.device, batch)
                if status.state is JobState.FINISHED or not status.state.is_final:
                    state, message = BatchState.SUBMITTED, f"the device now says {status.state.value}"
            self.journal.move(batch, {batch.state}, state, message=message)
        blocked = [error for batch in batches if (error := self._blocks(self.journal.batch(batch.number)))]
        # Read again: what was left by a dead process may have been recovered.
        batches = [self.journal.batch(batch.number) for batch in batches]
        if blocked:
            # Nothing more is sent, but what is at the device is fetched before the error is raised.
            batches = [batch for batch in batches if batch.state is BatchState.SUBMITTED]
        else:
            planned = [batch for batch in batches if batch.state is BatchState.PLANNED]
            for number, batch in enumerate(planned):
                self._note_time(payer, at_least=1.0)
                # All that is still to come, so that a call that does not fit costs nothing.
                self._send(batch, asked=sum((later.cost for later in planned[number:]), Cost()))
        pause = min(FIRST_PAUSE, self.longest_pause)
        while batches := [batch for batch in batches if not self._is_over(self.journal.batch(batch.number))]:
            self._note_time(payer, at_least=SECONDS_BETWEEN_NOTES)
            time.sleep(pause)
            pause = min(1.5 * pause, self.longest_pause)
        # Not in a `finally`: what goes wrong above may be the disk, and its message must come through.
        self._note_time(payer)
        if blocked:
            raise blocked[0]
        if self.failures:
            raise JobError(
                f"{'; '.join(self.failures)}. Results of all other batches are kept. To send what failed again, start "
                "the run again."
            )

    def _note_time(self, payer: Batch, *, at_least: float = 0.0) -> None:
        """Write down the seconds since the last note, if they are `at_least` that many."""
        passed = time.monotonic() - self._noted_at
        if passed >= at_least:
            self.journal.add_seconds(payer, passed)
            self._noted_at += passed

    def _blocks(self, batch: Batch) -> Exception | None:
        """Return why nothing more of the call can be sent, if it is because of this batch.

        A batch whose sender died in the call is recovered here where the device can tell what became of it.
        """
        if batch.state is BatchState.LOST:
            return JobError(
                f"{batch} was settled as lost, so this call cannot be answered. To send it again after all: "
                f"`qpeft jobs settle {batch.number} --resubmit`."
            )
        if not self._keeps_jobs or batch.state is not BatchState.INTENDED or self.journal.is_being_sent(batch):
            return None
        # Read again: the sender may have come to its end, and another begun, after the batch was read.
        now = self.journal.batch(batch.number)
        if now.state is BatchState.INTENDED and now.ticket == batch.ticket:
            try:
                recover(self.journal, self.device, batch)
            except JournalError as error:
                return error
        return None

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

    def _is_over(self, batch: Batch) -> bool:
        """Whether a batch is over, after the one step that it can be taken forward now.

        Raises: JournalError if its job died with a process and may have been paid for: the user decides then.
        """
        if batch.state in SENT and not self._keeps_jobs and self.sent_to.get(batch.number) is not self.device:
            # A job in the memory of a process: wait while that is another one that lives; else plan it anew.
            if is_alive(batch.owner) and not is_this_process(batch.owner):
                return False
            if self._is_remote:
                raise JournalError(
                    f"{batch} was with a process that ended or was interrupted; {batch.device} shows no job ids, so "
                    "its results cannot be fetched, and they may be paid for. To send it again: `qpeft jobs settle "
                    f"{batch.number} --resubmit`; the journal is {self.journal.path}."
                )
            self.journal.move(batch, SENT, BatchState.PLANNED, message="its job ended with the process that had it")
            return False
        error = self._blocks(batch)
        if error is not None:
            raise error
        batch = self.journal.batch(batch.number)
        if batch.state is BatchState.PLANNED:  # another process was to send it, and was refused
            self._send(batch, asked=batch.cost)
        elif batch.state is BatchState.SUBMITTED:
            self._collect(batch)
            batch = self.journal.batch(batch.number)
        if batch.state in ENDED.values():
            self.failures.append(f"{batch}, job {batch.job_id}, {batch.state.value}: {batch.message or 'no reason'}")
        elif batch.state is not BatchState.FINISHED:
            return False
        self.sent_to.pop(batch.number, None)
        return True

    def _collect(self, batch: Batch) -> None:
        """Ask after a batch, and again if the device only failed to answer, which does its job no harm.

        Raises: what will not be otherwise when asked again; anything, after as many questions as have pauses.
        """
        for pause in (*TROUBLED_PAUSES, None):
            try:
                collect(self.journal, self.device, batch)
            except DeviceError as error:  # noqa: PERF203
                is_final = isinstance(error, (JobError, CredentialsError, JournalError, OrderError))
                if is_final or not self._keeps_jobs or pause is None:
                    raise
                time.sleep(pause * self.longest_pause)
            else:
                return


def send(
    journal: Journal, device: AbstractDevice, batch: Batch, circuits: Sequence[Circuit], *, budget: Budget, asked: Cost
) -> bool:
    """Submit a planned batch: intention first, then the call, then the job id. False if another process was faster.

    Args:
        journal: that has the batch.
        device: that it is for.
        batch: planned.
        circuits: of it, markers included.
        budget: of its run.
        asked: what the call still has to send, this batch included.

    Raises: BudgetError before anything is sent; RefusedError or CredentialsError from the device, and the batch stays
        planned; JournalError if the call went wrong in any other way, since a job may exist.
    """
    keeps_jobs = device.capabilities().keeps_jobs
    # A name of its own for each submission: by it the device can be asked what became of the call.
    ticket = uuid.uuid4().hex
    device.prepare(ticket)
    with sending(journal.path, batch.number):
        if not journal.intend(batch, budget, asked, ticket=ticket):
            return False
        try:
            job_id = device.submit(circuits, batch.shots, ticket=ticket)
            # Without an id the job could never be fetched, and its batch would look unsent.
            if not job_id:
                raise JobError(f"{batch.device} took a job and gave it no id.")
        except (RefusedError, CredentialsError) as error:  # certain: no job exists
            journal.refused(batch, str(error), ticket=ticket)
            raise
        except BaseException as error:
            if not keeps_jobs:  # then what may exist dies with this process, and cannot be found anyway
                journal.refused(batch, str(error), ticket=ticket)
                raise
            # An interrupt too: the device may have the job all the same.
            journal.unclear(batch, f"{type(error).__name__}: {error}", ticket=ticket)
            if isinstance(error, Exception):
                raise JournalError(f"{ambiguity(journal, batch)} The device's error: {error}") from error
            raise
        _note_id(journal, batch, job_id, ticket=ticket)
    return True


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

    Args:
        journal: that has the batch.
        device: that may have its job.
        batch: whose sender died.

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
    """Return the state of a submitted batch at its device.

    Raises: JobError if the device does not know it, saying what to do.
    """
    assert batch.job_id is not None
    try:
        return device.poll(batch.job_id)
    except JobError as error:
        raise JobError(f"{batch}, job {batch.job_id}: {error} If it is gone for good: {ways_out(batch)}.") from error


def collect(journal: Journal, device: AbstractDevice, batch: Batch) -> JobStatus:
    """Ask after a submitted batch, and write its results down, or that it failed, if it is over.

    Args:
        journal: that has the batch.
        device: that has its job.
        batch: submitted.

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
        journal.move(batch, {BatchState.SUBMITTED}, ENDED[status.state], message=status.message)
    return status


def cancel(journal: Journal, device: AbstractDevice, batch: Batch) -> JobStatus:
    """Ask the device to stop a submitted batch, and write down what became of it.

    Args:
        journal, device, batch: as for `collect`.
    """
    assert batch.job_id is not None
    device.cancel(batch.job_id)
    return collect(journal, device, batch)


def ambiguity(journal: Journal, batch: Batch) -> str:
    """Say that a batch may or may not have been accepted, and what the user can do."""
    return (
        f"{batch} was being sent when that was interrupted, so the device may or may not have a job for it; it is not "
        f"sent again on its own. Look at the device's own list of jobs, then say {ways_out(batch)}; the journal is "
        f"{journal.path}."
    )


def ways_out(batch: Batch) -> str:
    """Return the commands that settle a batch."""
    return (
        f"`qpeft jobs settle {batch.number} --resubmit` (send it again), `--lost` (give its results up), or, if the "
        "job is found there, `--job ID`"
    )

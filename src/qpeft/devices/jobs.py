"""The steps of a journalled job that need the device: send, look after it, bring its results home, cancel it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from qpeft.circuits import Circuit
from qpeft.devices.budget import Budget, Cost
from qpeft.devices.journal import Batch, BatchState, Journal
from qpeft.devices.journal.owner import sending
from qpeft.devices.markers import check_order
from qpeft.devices.protocol import AbstractDevice, JobState, JobStatus, check_results
from qpeft.errors import CredentialsError, JobError, JournalError, OrderError, RefusedError

IN_HAND = {BatchState.SUBMITTED}
ENDED = {JobState.FAILED: BatchState.FAILED, JobState.CANCELLED: BatchState.CANCELLED}


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
        journal.move(batch, IN_HAND, ENDED[status.state], message=status.message)
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

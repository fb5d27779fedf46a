"""Jobs at IBM's service: sent under a tag, and asked about by their ids from any process."""

from __future__ import annotations

import hashlib
import itertools
import secrets
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qpeft.devices.ibm.service import WHAT_TO_DO, status_code
from qpeft.devices.ibm.translation import distributions
from qpeft.devices.memory_jobs import MemoryJobs
from qpeft.devices.protocol import Distribution, JobState, JobStatus
from qpeft.devices.secrets import redacted
from qpeft.errors import CredentialsError, DeviceError, JobError, RefusedError

if TYPE_CHECKING:
    from qiskit.providers import BackendV2
    from qiskit_ibm_runtime import QiskitRuntimeService, RuntimeJobV2


STATES = {
    "INITIALIZING": JobState.WAITING,
    "QUEUED": JobState.WAITING,
    "RUNNING": JobState.RUNNING,
    "DONE": JobState.FINISHED,
    "ERROR": JobState.FAILED,
    "CANCELLED": JobState.CANCELLED,
}
UNAUTHORISED = {401, 403}
TURNED_DOWN = {400, 404, 409, 413, 422, 429}
"""Answers after which no job exists. Others, and none at all, leave it open."""


def tag_of(ticket: str) -> str:
    """Return the job tag of a ticket, 22 letters: short and plain whatever the ticket is."""
    return f"qpeft-{hashlib.sha256(ticket.encode()).hexdigest()[:16]}"


class ServiceJobs:
    """The jobs of one backend of the service.

    Args:
        service: opened with the user's account.
        backend: of that service.
        options: of the sampler.
        secrets: that no message may hold.
    """

    def __init__(
        self,
        service: QiskitRuntimeService,
        backend: BackendV2,
        options: Mapping[str, Any],
        *,
        secrets: Sequence[object],
    ) -> None:
        self._service, self._backend, self._options, self._secrets = service, backend, options, secrets
        # Opening the backend chose the instance; looking for a job elsewhere may choose another.
        self._instance = service.active_instance()
        self._open: dict[str, RuntimeJobV2] = {}

    def submit(self, pubs: Sequence[tuple[Any, ...]], shots: int, ticket: str | None) -> str:
        """Send one job.

        Args:
            pubs: transpiled circuits as the sampler takes them.
            shots: per circuit.
            ticket: becomes a tag, by which the job is found again.

        Raises: RefusedError, CredentialsError, or DeviceError if a job may exist.
        """
        from qiskit_ibm_runtime.exceptions import IBMInputValueError  # noqa: PLC0415

        if not pubs:
            raise RefusedError("A job needs at least one circuit; nothing was sent.")
        environment = {**self._options.get("environment", {})}
        environment["job_tags"] = [*environment.get("job_tags", []), "qpeft", *([tag_of(ticket)] if ticket else [])]
        try:
            job = start(self._backend, pubs, shots, {**self._options, "environment": environment})
        except Exception as error:
            text, cause = redacted(error, self._secrets)
            code = status_code(error)
            if code in UNAUTHORISED:
                raise CredentialsError(f"IBM refused the account, so nothing was sent: {text} {WHAT_TO_DO}") from cause
            # The vendor checks circuits before it sends, with exactly these types; an answer it cannot read is a
            # subtype.
            if code in TURNED_DOWN or (code == 0 and type(error) in (ValueError, IBMInputValueError)):
                raise RefusedError(f"IBM's service took no job: {text}") from cause
            # A lost answer may follow a job that was taken. Only a RefusedError is certain that there is none, so that
            # nothing is sent, and paid for, twice.
            raise DeviceError(f"IBM's service may or may not have taken the job: {text}") from cause
        self._open[job.job_id()] = job
        return str(job.job_id())

    def find(self, ticket: str) -> str:
        """Return the id of the job with this ticket's tag.

        Raises: JobError if the service lists none: that it made none is not certain, since a request may still be on
            its way or in no list yet, and another account or instance has a list of its own.
        """
        tag = tag_of(ticket)
        try:
            # limit=None reads all pages; by default the client returns the ten latest.
            jobs = self._service.jobs(limit=None, job_tags=[tag], instance=self._instance)
        except Exception as error:
            text, cause = redacted(error, self._secrets)
            raise JobError(f"IBM's service cannot list the jobs with tag {tag}: {text}") from cause
        # Asked for by tag already; looked at again, since a service that ignored the filter would give somebody else's.
        found = [job.job_id() for job in jobs if tag in job.tags]
        if len(found) > 1:
            raise JobError(f"IBM's service has {len(found)} jobs with tag {tag}: {', '.join(found)}. Keep one of them.")
        if not found:
            raise JobError(
                f"IBM's service lists no job with tag {tag}. If that is so some minutes after the submission, and the "
                "account and the instance are those that it was made with, there is none."
            )
        return str(found[0])

    def poll(self, job_id: str) -> JobStatus:
        """Return a job's state. Raises: JobError if the service does not know it; DeviceError if it does not answer."""
        job = self._job(job_id)
        try:
            word = str(job.status())
            state = STATES.get(word)
            message = str(job.error_message() or "") if state is JobState.FAILED else ""
        except Exception as error:
            raise self._no_answer(job_id, error) from redacted(error, self._secrets)[1]
        if state is None:
            raise DeviceError(f"IBM's service says job {job_id} is {word!r}; known are {', '.join(STATES)}.")
        # Nobody asks often about a job that is over, and in a long run the objects would pile up.
        if state.is_final:
            self._open.pop(job_id, None)
        return JobStatus(state, message)

    def fetch(self, job_id: str) -> list[Distribution]:
        """Return the results of a job. Raises: JobError if it is not finished; DeviceError if they cannot be read."""
        status = self.poll(job_id)
        if status.state is not JobState.FINISHED:
            reason = f": {status.message}" if status.message else ""
            raise JobError(f"Job {job_id} is {status.state.value}, so it has no results{reason}.")
        job = self._job(job_id)
        try:
            result = job.result()
        except Exception as error:
            raise self._no_answer(job_id, error) from redacted(error, self._secrets)[1]
        return distributions(result)

    def cancel(self, job_id: str) -> None:
        """Stop a job; nothing happens if it is over."""
        from qiskit_ibm_runtime.exceptions import RuntimeInvalidStateError  # noqa: PLC0415

        if self.poll(job_id).state.is_final:
            return
        try:
            self._job(job_id).cancel()
        except RuntimeInvalidStateError:  # it ended since it was polled
            return
        except Exception as error:
            raise self._no_answer(job_id, error) from redacted(error, self._secrets)[1]

    def _job(self, job_id: str) -> RuntimeJobV2:
        if not job_id:
            raise JobError("IBM's service has no job without an id.")
        if job_id in self._open:
            return self._open[job_id]
        try:
            job = self._service.job(job_id)
        except Exception as error:
            raise self._no_answer(job_id, error) from redacted(error, self._secrets)[1]
        self._open[job_id] = job
        return job

    def _no_answer(self, job_id: str, error: Exception) -> DeviceError:
        text, code = redacted(error, self._secrets)[0], status_code(error)
        if code in UNAUTHORISED:
            return CredentialsError(f"IBM refused to speak of job {job_id!r}: {text} {WHAT_TO_DO}")
        if code in {400, 404} or type(error).__name__ == "RuntimeJobNotFound":
            return JobError(f"IBM's service knows no job {job_id!r} of this account: {text}")
        return DeviceError(f"IBM's service did not answer about job {job_id}: {text}")


# Jobs on simulators of this machine: in memory, run when they are first asked about.


SEED_STRIDE = 1_000_003
"""Between the seeds of two devices, so that their jobs seldom share samples."""


class LocalJobs(MemoryJobs):
    """Simulated jobs; samples are a function of the seed and the number of the job.

    Args:
        backend: a simulator.
        options: of the sampler.
        seed: of the samples; None for others each time.
    """

    def __init__(self, backend: BackendV2, options: Mapping[str, Any], *, seed: int | None) -> None:
        super().__init__("ibm")
        self._backend, self._options = backend, options
        self._seeds = itertools.count(secrets.randbits(30) if seed is None else seed * SEED_STRIDE)

    def submit(self, pubs: Sequence[tuple[Any, ...]], shots: int, ticket: str | None) -> str:  # noqa: ARG002
        """Keep a job for its first poll.

        Args:
            pubs: transpiled circuits as the sampler takes them.
            shots: per circuit.
            ticket: not needed, since such a job ends with its process.
        """
        # From 1: the simulator takes 0 for no seed.
        seed = next(self._seeds) % (2**31 - 1) + 1
        options = {**self._options, "simulator": {**self._options.get("simulator", {}), "seed_simulator": seed}}
        return self.add(lambda: distributions(start(self._backend, pubs, shots, options).result()) if pubs else [])


# One call of Qiskit's sampler, the same for the service and for simulators.


def start(backend: BackendV2, pubs: Sequence[tuple[Any, ...]], shots: int, options: Mapping[str, Any]) -> Any:
    """Start a job of a sampler, and return it.

    Args:
        backend: of the service, or a simulator.
        pubs: as `Translator.pubs` returns them.
        shots: per circuit.
        options: of SamplerV2, nested.

    Raises: what the vendor raises.
    """
    from qiskit_ibm_runtime import SamplerV2  # noqa: PLC0415

    with warnings.catch_warnings():
        # Its successor works on the client's side and has other options; the name is to lead there in time.
        warnings.filterwarnings("ignore", "The SamplerV2 class is deprecated", DeprecationWarning)
        sampler = SamplerV2(mode=backend, options=dict(options))
    return sampler.run(pubs, shots=shots)

"""The cloud behind the HTTP: accepts jobs, computes them one after the other, and tells how they are."""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import threading
import time
from collections import Counter
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from qpeft.errors import CircuitError, DeviceError
from qpeft.simulation.noise import SampleKey
from qpeft_emulator import messages
from qpeft_emulator.machine import Machine
from qpeft_emulator.messages import CHIP, MAX_PROGRAMS, MAX_SHOTS, BlocksQuestion, RequestError, Submission, parse_body
from qpeft_emulator.outcomes import Outcome, RunOptions, run_program
from qpeft_emulator.parser import ParsedProgram, parse_origin_ir
from qpeft_emulator.placement import best_blocks
from qpeft_emulator.store import Store, StoredJob

CANCELLED = "cancelled by the user"
log = logging.getLogger(__name__)


class _StoppedError(Exception):
    """The emulator is asked to stop between two programs of a job."""


@dataclass(frozen=True)
class Timing:
    """Seconds after acceptance at which a job leaves WAITING and QUEUING, and before which it is not FINISHED."""

    waiting: float = 0.05
    queuing: float = 0.1
    computing: float = 0.15


class EmulatedCloud:
    """One chip and its jobs. Methods may be called from any thread; jobs are computed in one of its own.

    Results are a function of (seed, programs, number of the job), so jobs that a stop interrupted are computed again.
    """

    def __init__(self, machine: Machine, seed: int, store: Store, timing: Timing, *, is_online: bool = True) -> None:
        self.machine, self.is_online = machine, is_online
        self._seed, self._store, self._timing = seed, store, timing
        self._queue: SimpleQueue[str | None] = SimpleQueue()
        self._stopping = threading.Event()
        self._worker = threading.Thread(target=self._compute_all, daemon=True)
        # What an earlier process accepted and did not finish.
        for job in store.all():
            if job.result is None and not job.message:
                self._queue.put(job.id)
        self._worker.start()

    def submit(self, raw: bytes, *, will_fail: str = "") -> str:
        """Accept a job and return its id. Raises: RequestError if it is refused; then no job exists."""
        submission = parse_body(Submission, raw)
        shots = submission.configuration.shots
        if submission.machine_type != CHIP:
            raise RequestError(
                f"The emulator has chips only, QMachineType {CHIP}; got {submission.machine_type}.", code=2
            )
        self._check_chip(submission.chip_id)
        if not submission.programs:
            raise RequestError(
                "QProg has no program. The emulator reads OriginIR, no binary programs or pulses.", code=2
            )
        if not self.is_online:
            raise RequestError(f"Chip {submission.chip_id} is offline; try later.", code=3)
        if len(submission.programs) > MAX_PROGRAMS:
            raise RequestError(f"At most {MAX_PROGRAMS} programs a job; got {len(submission.programs)}.", code=2)
        if not 1 <= shots <= MAX_SHOTS:
            raise RequestError(f"Shots are from 1 to {MAX_SHOTS:,}; got {shots:,}.", code=2)
        # Parsed again when it is computed: the store keeps the request as sent, so a restart reads no format of ours.
        parse_programs(submission)
        job_id = secrets.token_hex(16).upper()
        # On disk before the id is told: a job that a client knows of outlives any crash.
        self._store.add(job_id, raw, time.time(), len(submission.programs), shots, will_fail)
        self._queue.put(job_id)
        return job_id

    def detail(self, job_id: str) -> messages.Json:
        """Return state and results of a job. Raises: RequestError if there is none of this id."""
        job = self._known(job_id)
        state = self._state(job)
        detail = messages.task_detail(job.id, state, [], job.message if state == "FAILED" else "", [])
        return detail | json.loads(job.result) if state == "FINISHED" and job.result else detail

    def cancel(self, job_id: str) -> None:
        """Stop a job. Raises: RequestError if there is none of this id, or it is over."""
        state = self._state(self._known(job_id))
        if state in ("FINISHED", "FAILED"):
            raise RequestError(f"Job {job_id} is {state} and cannot be cancelled.", code=5)
        self._store.cancel(job_id, CANCELLED)

    def chip_info(self, chip_id: str) -> messages.Json:
        """Return the calibration. Raises: RequestError if the chip is another."""
        self._check_chip(chip_id)
        return messages.chip_info(self.machine.chip)

    def blocks(self, question: BlocksQuestion) -> messages.Json:
        """Return good blocks, as many as there are. Raises: RequestError if there is none, or the chip is another."""
        self._check_chip(question.chip_id)
        blocks = best_blocks(self.machine.chip, question.size, question.count)
        if not blocks:
            raise RequestError(f"No block of {question.size} connected living qubits.", code=6)
        asked = {"ChipID": question.chip_id, "QubitNum": question.size, "Label": question.label}
        return {**asked, "QubitBlockNum": question.count, "QubitBlocks": blocks}

    def resources(self) -> list[messages.Json]:
        """Return the chips."""
        chip_id = self.machine.chip.chip_id
        return [{"machineType": int(CHIP), "onlineFlag": self.is_online, "sinanChipId": chip_id}]

    def stats(self) -> messages.Json:
        """Return what was accepted: in all, by job, and how many programs came more than once in different jobs."""
        jobs, seen = self._store.all(), Counter[str]()
        per_job: dict[str, Any] = {}
        for job in jobs:
            hashes = [_hash(text) for text in parse_body(Submission, job.body).programs]
            # Once per job: a job may repeat a program on purpose, while two jobs with one may have been paid for twice.
            seen.update(set(hashes))
            facts = {"number": job.number, "circuits": job.programs, "shots": job.shots, "state": self._state(job)}
            per_job[job.id] = {**facts, "programs": hashes}
        # Shots are per program, so a job pays for the product.
        return {
            "jobs": len(jobs),
            "circuits": sum(job.programs for job in jobs),
            "shots": sum(job.programs * job.shots for job in jobs),
            "repeated_programs": sum(count - 1 for count in seen.values()),
            "per_job": per_job,
        }

    def close(self) -> None:
        """Stop after the program at hand; the rest is computed by whoever opens the store next."""
        # The None wakes the worker where it waits for a job; the event stops it where it computes one.
        self._stopping.set()
        self._queue.put(None)
        self._worker.join(timeout=2)
        if not self._worker.is_alive():  # else it is in a long program, and ends with the process
            self._store.close()

    def _check_chip(self, chip_id: str) -> None:
        if chip_id != self.machine.chip.chip_id:
            raise RequestError(
                f"There is no chip {chip_id[:40]!r} here; there is {self.machine.chip.chip_id!r}.", code=4
            )

    def _known(self, job_id: str) -> StoredJob:
        job = self._store.get(job_id)
        if job is None:
            raise RequestError(f"There is no job {job_id[:64]!r}.", code=5)
        return job

    def _state(self, job: StoredJob) -> str:
        if job.message == CANCELLED:
            return "FAILED"
        # By its age alone: a job looks as if it waited and queued, although it may be computed long since.
        age = time.time() - job.accepted
        if age < self._timing.waiting:
            return "WAITING"
        if age < self._timing.queuing:
            return "QUEUING"
        if age < self._timing.computing or (job.result is None and not job.message):
            return "COMPUTING"
        return "FAILED" if job.message else "FINISHED"

    def _compute_all(self) -> None:
        while (job_id := self._queue.get()) is not None:
            job = self._known(job_id)
            # Cancelled while it waited, or accepted to fail by a fault that was asked for.
            if job.message:
                continue
            try:
                self._store.finish(job_id, json.dumps(self._compute(job)))
            except _StoppedError:
                return
            except DeviceError as error:
                self._store.fail(job_id, str(error))
            except Exception as error:  # whatever it is, the client must hear of it, and later jobs must run
                log.exception("job %s", job_id)
                self._store.fail(job_id, f"The emulator failed: {type(error).__name__}: {error}")

    def _compute(self, job: StoredJob) -> messages.Json:
        submission = parse_body(Submission, job.body)
        asked = submission.configuration
        options = RunOptions(
            shots=asked.shots,
            amend=asked.amend_flag > 0,
            mapping=asked.mapping,
            optimise=asked.optimise,
            block=asked.specified_block,
        )
        outcomes: list[Outcome] = []
        earlier: Counter[str] = Counter()
        for text, program in zip(submission.programs, parse_programs(submission), strict=True):
            if self._stopping.is_set():
                raise _StoppedError
            # Equal programs of one job get samples of their own, as on a chip; a restart draws the same ones again.
            key = SampleKey(self._seed, step=job.number, module=_hash(text), call=earlier[text])
            earlier[text] += 1
            try:
                outcomes.append(run_program(self.machine, program, options, job.number, key))
            except DeviceError as error:
                raise DeviceError(f"Program {len(outcomes)}: {error}") from error
        return messages.task_detail(job.id, "FINISHED", outcomes, "", submission.programs)


def parse_programs(submission: Submission) -> list[ParsedProgram]:
    """Return all programs of a job. Raises: RequestError that names the first that cannot be read, and its line."""
    programs: list[ParsedProgram] = []
    try:
        for text in submission.programs:
            programs += [parse_origin_ir(text)]
    except CircuitError as error:
        raise RequestError(f"Program {len(programs)}: {error}", code=7) from error
    return programs


def _hash(text: str) -> str:
    # Programs come from clients, which may send half a surrogate.
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]

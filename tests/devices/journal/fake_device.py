"""A device whose jobs live in a file, like a cloud: it outlives its clients, counts what it ran, and can kill them."""

import fcntl
import hashlib
import json
import os
import signal
import time
from contextlib import contextmanager
from pathlib import Path

from qpeft.circuits import GATES, Circuit, Operation
from qpeft.devices import AbstractDevice, Capabilities, JobState, JobStatus
from qpeft.errors import JobError
from qpeft_emulator.faults import places

SHOTS = 1000


class FakeDevice(AbstractDevice):
    """Results depend on the circuit and on the number of the job, so that a job run twice shows in the results.

    Args:
        store: file with one line per accepted job.
        die_at: name of a moment and how often it passes first, as ("after acceptance", 2): the process kills itself.
        polls: how often a job is running before it is finished.
        pause: seconds that pass at every moment at which it can die.
        fail: numbers of jobs that fail.
        keeps_tickets: whether it can say what became of a submission.
        is_remote: whether somebody may be paid for what it runs.
        answers_by_place: whether jobs hold circuits of known outcome as well.
        order: which result of a job stands where, as `places` of the emulator's faults has it; None for the right one.
    """

    def __init__(
        self,
        store,
        *,
        die_at=None,
        polls=0,
        pause=0.0,
        fail=(),
        max_circuits=4,
        name="fake",
        keeps_jobs=True,
        noise=None,
        keeps_tickets=False,
        is_remote=True,
        answers_by_place=False,
        order=None,
    ):
        self.pause = pause
        self.store, self.die_at, self.polls, self.fail = Path(store), die_at, polls, fail
        self.max_circuits, self.name, self.keeps_jobs, self.noise = max_circuits, name, keeps_jobs, noise
        self.keeps_tickets, self.is_remote = keeps_tickets, is_remote
        self.answers_by_place, self.order = answers_by_place, order
        self.asked = {}
        self.passed = {}
        self.store.touch()

    def capabilities(self):
        return Capabilities(
            name=self.name,
            num_qubits=8,
            gate_names=frozenset(GATES),
            max_shots=10_000,
            max_circuits=self.max_circuits,
            can_be_exact=False,
            is_remote=self.is_remote,
            keeps_jobs=self.keeps_jobs,
            answers_by_place=self.answers_by_place,
        )

    def submit(self, circuits, shots, *, ticket=None):
        self.reach("before acceptance")
        with self.locked() as file:
            number = len(file.readlines())
            texts = [str(circuit) for circuit in circuits]
            results = [
                flipped(circuit) or outcome(text, number, circuit.num_qubits)
                for text, circuit in zip(texts, circuits, strict=True)
            ]
            file.write(json.dumps({"circuits": texts, "shots": shots, "ticket": ticket, "results": results}) + "\n")
        self.reach("after acceptance")
        return f"job-{number}"

    def find_job(self, ticket):
        if not self.keeps_tickets:
            return super().find_job(ticket)
        tickets = [job["ticket"] for job in self.jobs()]
        return f"job-{tickets.index(ticket)}" if ticket in tickets else None

    def poll(self, job_id):
        self.reach("poll")
        number = self.number(job_id)
        if number in self.fail:
            return JobStatus(JobState.FAILED, "cooling failed")
        self.asked[number] = self.asked.get(number, 0) + 1
        return JobStatus(JobState.RUNNING if self.asked[number] <= self.polls else JobState.FINISHED)

    def fetch(self, job_id):
        self.reach("fetch")
        results = self.jobs()[self.number(job_id)]["results"]
        return results if self.order is None else [results[k] for k in places(self.order, job_id, len(results))]

    def cancel(self, job_id):
        self.fail = (*self.fail, self.number(job_id))

    def calibration(self):
        return self.noise

    def jobs(self):
        return [json.loads(line) for line in self.store.read_text().splitlines()]

    def runs(self):
        """How often each circuit was accepted."""
        texts = [text for job in self.jobs() for text in job["circuits"]]
        return {text: texts.count(text) for text in texts}

    def number(self, job_id):
        number = int(job_id.removeprefix("job-"))
        if number >= len(self.jobs()):
            raise JobError(f"There is no job {job_id}.")
        return number

    def reach(self, moment):
        time.sleep(self.pause)
        self.passed[moment] = self.passed.get(moment, 0) + 1
        if self.die_at == (moment, self.passed[moment]):
            os.kill(os.getpid(), signal.SIGKILL)

    @contextmanager
    def locked(self):
        with self.store.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file


def outcome(text, number, num_qubits):
    """A made-up distribution of SHOTS shots over two bit strings."""
    draw = int.from_bytes(hashlib.sha256(f"{number} {text}".encode()).digest()[:4], "big") % (SHOTS + 1)
    return {"0" * num_qubits: draw / SHOTS, "1" * num_qubits: 1 - draw / SHOTS}


def flipped(circuit):
    """The result of a circuit that only flips qubits; None for others."""
    if not circuit.operations or any(operation.gate_name != "X" for operation in circuit.operations):
        return None
    ones = {qubit for operation in circuit.operations for qubit in operation.qubits}
    return {"".join(str(int(qubit in ones)) for qubit in range(circuit.num_qubits)): 1.0}


def rotation(angle, num_qubits=2):
    """A circuit that its angle tells from others."""
    return Circuit(num_qubits, (Operation("RY", (0,), angle), Operation("CNOT", (0, 1))))

"""A chip of Origin's cloud as a device."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qpeft.circuits import GATES, Circuit
from qpeft.devices.chip import find_blocks
from qpeft.devices.origin.account import DEFAULT_URL, checked_url
from qpeft.devices.origin.chip import Chip, chip_from, noise_model_of
from qpeft.devices.origin.cloud import SECONDS_PER_ANSWER, Cloud, chips_of, listed_as, written
from qpeft.devices.origin.outbox import (
    Outbox,
    Structure,
    check_places,
    default_folder,
    one_each,
    side_by_side,
    split_id,
    structure_of,
    suffix_of,
)
from qpeft.devices.origin.replies import check_same, distributions_of, status_of, task_of
from qpeft.devices.protocol import AbstractDevice, Capabilities, Distribution, JobState, JobStatus, check_request
from qpeft.devices.secrets import is_loopback
from qpeft.errors import CredentialsError, DeviceError, JobError, RefusedError
from qpeft.simulation.noise import NoiseModel

MAX_PROGRAMS = 200
"""In one job, as the vendor states; the client does not check it."""
MAX_SHOTS = 100_000
"""Our own guard against a typing error; the vendor states no limit."""
SECONDS_ONLINE = 30.0
"""For how long the word of the cloud is taken that a chip is online."""
SECONDS_PER_JOB, SECONDS_PER_SHOT = 2.8, 1.6e-4
"""From an example that the vendor printed: 3.4 s with its queue for a job of 1,000 shots, 0.16 s of it measuring."""


class OriginDevice(AbstractDevice):
    """A chip of Origin's cloud. The key comes from the environment (QPEFT_ORIGIN_KEY) or the keyring, never from here.

    Args:
        chip: name as `qpeft devices chips` lists it, or the other one that it shows, as origin_wukong for 72.
        url: of the cloud; https, or http on this machine.
        amend: let the cloud correct readout errors of the shares.
        mapping: let the cloud choose qubits and insert SWAPs; without, qubit k of a circuit is qubit k of the chip.
        optimization: let the cloud simplify circuits.
        block: qubits of the chip that mapping may use; empty for all.
        qubits: of the chip, on which every circuit runs, its qubit k on the k-th of them; takes no mapping.
            `devices.find_blocks` names the best. Needed wherever one must know them, as readout inversion must.
        side_by_side: put several circuits that differ in nothing but angles into each program, on the best blocks of
            the chip: True for as many as there are places for, a number for exactly that many. It takes no mapping,
            and needs amend=False.
        outbox: folder with a note on every submission; by default beside the journal.
        seconds_per_answer: after which a request counts as lost; the client itself gives up after 60 s, or 180 s where
            it tries three times.

    Raises: DeviceError for an address that is not a server's or not encrypted.
    """

    def __init__(
        self,
        *,
        chip: str,
        url: str = DEFAULT_URL,
        amend: bool = True,
        mapping: bool = True,
        optimization: bool = True,
        block: Sequence[int] = (),
        qubits: Sequence[int] = (),
        side_by_side: bool | int = False,
        outbox: str | None = None,
        seconds_per_answer: float = SECONDS_PER_ANSWER,
    ) -> None:
        chip = str(chip)  # the number that Python code may give, as YAML does
        self._url, self._chip_name = checked_url(url), chip
        if not chip or not chip.isprintable():
            raise DeviceError(f"The chip is a name as `qpeft devices chips` lists it; got {chip!r}.")
        if side_by_side < 0:
            raise DeviceError(
                f"side_by_side is True, False or how many circuits go into a program; got {side_by_side}."
            )
        if side_by_side and amend:
            raise DeviceError(
                "side_by_side fills a program with more bits than the cloud can correct together; pass amend=False, "
                "and correct each circuit's own bits."
            )
        if len(set(qubits)) != len(qubits) or any(qubit < 0 for qubit in qubits):
            raise DeviceError(f"qubits are different qubits of the chip; got {list(qubits)}.")
        if qubits and side_by_side:
            raise DeviceError("qubits says where every circuit runs, and side_by_side finds places itself; give one.")
        if block and (side_by_side or qubits or not mapping):
            raise DeviceError("block says which qubits mapping may use, and there is no mapping here; leave it out.")
        self._side_by_side, self._qubits = side_by_side, tuple(qubits)
        mapping = mapping and not side_by_side and not qubits
        self._options = {"amend": amend, "mapping": mapping, "optimization": optimization, "block": list(block)}
        self._outbox = Outbox(default_folder() if outbox is None else Path(outbox))
        self._cloud = Cloud(self._url, seconds_per_answer)
        self._chip: Chip | None = None
        self._seen_online = -SECONDS_ONLINE
        self._cancelled: set[str] = set()
        self._polled: dict[str, dict[str, Any]] = {}
        self._blocks: dict[Structure, list[tuple[int, ...]]] = {}
        self._num_blocks: int | None = None
        self._is_tidy = False

    def capabilities(self) -> Capabilities:
        """Return what the device can do: all gates, on as many qubits as were alive when the chip was last looked at.

        Raises: DeviceError if the cloud does not tell, the first time.
        """
        # True stands for as many as fit, which depends on the circuits, so nothing is promised for it.
        beside = 1 if self._side_by_side is True else int(self._side_by_side) or 1
        return Capabilities(
            name="origin",
            num_qubits=len(self._known_chip().qubits),
            gate_names=frozenset(GATES),
            max_shots=MAX_SHOTS,
            max_circuits=MAX_PROGRAMS * beside,
            can_be_exact=False,
            is_remote=not is_loopback(self._url),
            recipient=f"origin at {self._url}",
            seconds_per_job=SECONDS_PER_JOB,
            seconds_per_shot=SECONDS_PER_SHOT,
            corrects_readout=bool(self._options["amend"]),
            simplifies_circuits=bool(self._options["optimization"]),
            chooses_qubits=bool(self._options["mapping"] or self._side_by_side),
            answers_by_place=True,
        )

    def submit(self, circuits: Sequence[Circuit], shots: int | None, *, ticket: str | None = None) -> str:
        """Send one job.

        Args:
            circuits: bound, one or more.
            shots: per circuit.
            ticket: under which the submission was prepared.

        Raises: as the base class; all that is found before anything is sent is a RefusedError, a CredentialsError or,
            for a number of shots that no chip takes, a ShotsError.
        """
        # Not again: the note may say by now that another process took this one for dead and gave the submission up.
        if ticket is not None and not self._outbox.has(ticket):
            self.prepare(ticket)
        notes: list[Path | None] = []

        def hand_over(pid: int, started: float) -> Path | None:
            notes.append(self._outbox.hand_over(ticket, pid, started))
            return notes[0]

        try:
            return self._cloud.submit(self._arguments(circuits, shots), hand_over)
        except BaseException as error:
            # Before it is handed over, an interrupt is as certain as a refusal.
            if not notes or isinstance(error, (RefusedError, CredentialsError)):
                self._outbox.refuse(ticket, str(error))
            raise

    def prepare(self, ticket: str) -> None:
        """Write the first note of a submission. Raises: RefusedError if the outbox cannot be written."""
        if not self._is_tidy:  # once per device is enough for notes that are kept for a month
            self._outbox.remove_old()
            self._is_tidy = True
        self._outbox.prepare(ticket)

    def find_job(self, ticket: str) -> str | None:
        """Return the id of the job of a submission whose sender died; None if it is certain that there is none.

        A submission that is still under way in its worker is waited for. Raises: JobError if it cannot be told.
        """
        return self._outbox.find(ticket)

    def poll(self, job_id: str) -> JobStatus:
        """Return a job's state. Raises: JobError if the cloud does not know it, DeviceError if it does not answer."""
        reply = self._reply(job_id)
        status = status_of(reply, job_id, was_cancelled=job_id in self._cancelled)
        # The first of the two answers that `fetch` compares, so that a job costs no request more.
        if status.state is JobState.FINISHED and reply.get("taskResult"):
            self._polled[job_id] = reply
        return status

    def fetch(self, job_id: str) -> list[Distribution]:
        """Return the results of a finished job, on which two answers of the cloud agree; one may be that of `poll`.

        Raises: as the base class; OrderError if the two have them in different orders, or are different otherwise.
        """
        _, programs = split_id(job_id)
        reply = self._reply(job_id)
        status = status_of(reply, job_id, was_cancelled=job_id in self._cancelled)
        if status.state is not JobState.FINISHED:
            raise JobError(f"Job {job_id} is {status.state.value}, so it has no results. {status.message}".rstrip())
        found = distributions_of(reply, job_id, programs)
        # Nothing in a reply says which circuit a result is of, so at least it must always be the same.
        polled = self._polled.pop(job_id) if job_id in self._polled else self._reply(job_id)
        earlier = distributions_of(polled, job_id, programs)
        check_same(earlier, found, job_id)
        return found

    def _reply(self, job_id: str) -> dict[str, Any]:
        task, _ = split_id(job_id)
        return task_of(self._cloud.detail(task), task)

    def cancel(self, job_id: str) -> None:
        """Stop a job. Raises: DeviceError if the cloud does not, although the job is not over."""
        # The cloud says of a cancelled job that it failed; only who cancelled it knows better.
        if self._cloud.cancel(split_id(job_id)[0]):
            self._cancelled.add(job_id)
        elif not (status := self.poll(job_id)).state.is_final:
            raise DeviceError(f"Origin's cloud does not cancel job {job_id}, which is {status.state.value}.")

    def place(self, circuit: Circuit) -> tuple[int, ...] | None:
        """Without mapping, the qubits named or the first ones; None with mapping or side by side."""
        if self._options["mapping"] or self._side_by_side:
            return None
        check_places([circuit], self._qubits, self._known_chip())
        return tuple(self._qubits or range(circuit.num_qubits))[: circuit.num_qubits]

    def calibration(self) -> NoiseModel:
        """Return what the cloud lists of the chip now, on the chip's own qubit numbers; see docs/origin.md."""
        self._chip, self._blocks = chip_from(self._cloud.chip(self._chip_name)), {}
        return noise_model_of(self._chip)

    @property
    def num_blocks(self) -> int | None:
        """Return how many circuits of the last job went side by side in a program; None if none did."""
        return self._num_blocks

    def close(self) -> None:
        """End the worker process after what it does. Using the device again starts another."""
        self._cloud.close()

    def _arguments(self, circuits: Sequence[Circuit], shots: int | None) -> dict[str, object]:
        """Return the arguments of the question that sends a job, after every check that can be made before."""
        try:
            shots = check_request(self.capabilities(), circuits, shots)
            if not circuits:
                raise DeviceError("A job holds at least one circuit; got none.")
            self._check_listed(must_be_online=True)
            if self._side_by_side:
                programs = side_by_side(circuits, self._find_blocks(circuits))
            else:
                if not self._options["mapping"]:
                    check_places(circuits, self._qubits, self._known_chip())
                programs = one_each(circuits, self._qubits)
        except (RefusedError, CredentialsError):
            raise
        except DeviceError as error:
            # Nothing has been sent yet, and only a RefusedError lets a caller try again without fear of paying twice.
            raise RefusedError(str(error)) from error
        return {
            "chip": self._chip_name,
            "programs": [program.text for program in programs],
            "shots": shots,
            "options": self._options,
            "suffix": suffix_of(program.contents for program in programs),
        }

    def _find_blocks(self, circuits: Sequence[Circuit]) -> list[tuple[int, ...]]:
        """Return the places of circuits side by side. Raises: DeviceError if there are fewer than asked for."""
        # Kept by structure, since a training run sends the same one all the time and only its angles change.
        structure, example = structure_of(circuits)
        if structure not in self._blocks:
            most = None if self._side_by_side is True else self._side_by_side
            self._blocks[structure] = find_blocks(example, noise_model_of(self._known_chip()), most=most)
        blocks = self._blocks[structure]
        if self._side_by_side is not True and len(blocks) < self._side_by_side:
            raise DeviceError(
                f"{self._chip_name} has places for {len(blocks)} of these circuits side by side, not for "
                f"{self._side_by_side}; use side_by_side={len(blocks)}, or True for as many as there are."
            )
        self._num_blocks = len(blocks)
        return blocks

    def _known_chip(self) -> Chip:
        if self._chip is None:
            self._check_listed(must_be_online=False)
            self._chip = chip_from(self._cloud.chip(self._chip_name))
        return self._chip

    def _check_listed(self, *, must_be_online: bool) -> None:
        if time.monotonic() - self._seen_online < SECONDS_ONLINE:
            return
        chips = chips_of(self._cloud)
        name = listed_as(self._chip_name, chips)
        if name is None:
            known = ", ".join(map(written, sorted(chips))) or "none"
            raise DeviceError(f"Origin's cloud at {self._url} has no chip {self._chip_name!r}; it has {known}.")
        if chips[name]:
            self._seen_online = time.monotonic()
        elif must_be_online:
            raise DeviceError(f"Chip {written(name)} is offline, so nothing was sent; try again later.")

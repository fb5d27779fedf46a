"""What became of each submission, in one small file per ticket, so that it is known after whoever sent it died.

This process notes that it prepares a submission, then that it is handed over to a worker; the worker notes that it
sends it, and then what came of it. Each note replaces the one before in one step.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import socket
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qpeft.circuits import Circuit
from qpeft.circuits.origin_ir import to_origin_ir
from qpeft.devices.journal import default_path
from qpeft.devices.journal.owner import is_alive, this_process
from qpeft.devices.origin.chip import Chip
from qpeft.devices.origin.worker import HANDED_OVER, REFUSED, SENDING, SENT, write_note
from qpeft.errors import DeviceError, JobError, RefusedError

PREPARING = "preparing"
UNDER_WAY = (PREPARING, HANDED_OVER, SENDING)
SECONDS_KEPT = 30 * 24 * 3600.0
PAUSE = 0.05
LETTERS = 40
"""In the name of a note."""


def default_folder() -> Path:
    """Beside the journal, in the user's data folder."""
    return default_path().parent / "origin-outbox"


@dataclass(frozen=True)
class Outbox:
    """The files in one folder.

    Attributes:
        folder: made when the first note is written.
        patience: seconds to wait for a submission that is still under way.
    """

    folder: Path
    patience: float = 300.0

    def path(self, ticket: str) -> Path:
        """Return the path of the note. Its name is a hash: a ticket may have any characters."""
        return self.folder / f"{hashlib.sha256(ticket.encode()).hexdigest()[:LETTERS]}.json"

    def has(self, ticket: str) -> bool:
        """Whether there is a note on this ticket."""
        return self.path(ticket).exists()

    def prepare(self, ticket: str | None) -> None:
        """Note that this process is about to hand a submission over.

        Raises: RefusedError if that cannot be written: nothing is sent without.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise RefusedError(f"The outbox {self.folder} cannot be used, so nothing was sent: {error}.") from error
        self._write(ticket, PREPARING, this_process())

    def hand_over(self, ticket: str | None, pid: int, started: float) -> Path | None:
        """Note which worker gets it, before it does, and say where.

        Args:
            ticket: of the submission; None for one that nobody will ask about.
            pid: of the worker.
            started: when the worker began, seconds since the epoch, which tells it from a later process of the same
                number.

        Raises: as `prepare`; RefusedError also if another process took this one for dead and gave the submission up.
        """
        # Whoever took this process for dead has promised its caller that nothing will be sent.
        if ticket is not None and self._read(ticket)["state"] != PREPARING:
            raise RefusedError("Another process has given this submission up, so it was not sent.")
        self._write(ticket, HANDED_OVER, f"{socket.gethostname()} {pid} {started:.2f}")
        return None if ticket is None else self.path(ticket)

    def refuse(self, ticket: str | None, why: str) -> None:
        """Note that nothing was sent and nothing will be. Raises: as `prepare`."""
        self._write(ticket, REFUSED, this_process(), why)

    def find(self, ticket: str) -> str | None:
        """Return the job of a ticket; None if it is certain that there is none.

        Raises: JobError if it cannot be told, or the submission is under way for longer than `patience`; as `prepare`.
        """
        deadline = time.monotonic() + self.patience
        while (note := self._read(ticket))["state"] in UNDER_WAY and self._may_change(ticket, note):
            if time.monotonic() > deadline:
                raise JobError(
                    f"The submission is {note['state']} by {note['owner']}, which still runs; try again later."
                )
            time.sleep(PAUSE)
        if note["state"] == SENT:
            return str(note["job"])
        if note["state"] in (PREPARING, HANDED_OVER):
            # Should its owner live after all, where it cannot be seen from here, it finds this and does not send.
            self.refuse(ticket, f"given up by {this_process()}")
            return None
        if note["state"] == REFUSED:
            return None
        # SENDING without an owner, or UNCLEAR: the request may have reached the cloud. To send again might pay twice.
        why = f": {note['why']}" if note["why"] else ""
        raise JobError(f"Its worker died while it was sent, or the cloud gave no answer that says what it did{why}.")

    def remove_old(self) -> None:
        """Forget submissions that are more than a month old."""
        oldest = time.time() - SECONDS_KEPT
        # Notes and what a killed writer left of one, nothing else: the user may have files of his own in the folder.
        for file in self.folder.glob(f"{'[0-9a-f]' * LETTERS}.*"):
            with suppress(FileNotFoundError):  # another process was faster
                if file.stat().st_mtime < oldest:
                    file.unlink()

    def _may_change(self, ticket: str, note: dict[str, Any]) -> bool:
        """Whether somebody may still write another note in place of this one, or has just done so."""
        host = note["owner"].rsplit(" ", 2)[0]
        if host != socket.gethostname():
            raise JobError(f"The submission was made on {host}; only there can be seen whether it is over.")
        # Looked at again after its owner was seen dead: it may have handed the submission over just before.
        return is_alive(note["owner"]) or self._read(ticket) != note

    def _read(self, ticket: str) -> dict[str, Any]:
        try:
            note: dict[str, Any] = json.loads(self.path(ticket).read_text())
        except FileNotFoundError as error:
            raise JobError(f"There is no note of the submission in {self.folder}.") from error
        except (OSError, ValueError) as error:
            raise JobError(f"The note of the submission, {self.path(ticket)}, cannot be read: {error}.") from error
        return note

    def _write(self, ticket: str | None, state: str, owner: str, why: str = "") -> None:
        if ticket is None:  # nobody will ask
            return
        note = {"state": state, "owner": owner, "job": None, "why": why}
        try:
            # If the power fails the note before this one may be what is left; before the worker's, nothing is sent.
            write_note(self.path(ticket), note, outlives_power_cut=False)
        except OSError as error:
            raise RefusedError(f"The outbox {self.folder} cannot be written, so nothing was sent: {error}.") from error


# Circuits as the programs of a job: one each, or as many side by side as the chip has places for.


Structure = tuple[int, tuple[tuple[str, tuple[int, ...]], ...]]


@dataclass(frozen=True)
class OriginProgram:
    """OriginIR, and what it holds."""

    text: str
    contents: Contents


def one_each(circuits: Sequence[Circuit], qubits: Sequence[int] = ()) -> list[OriginProgram]:
    """Return every circuit in a program of its own, on the first of these qubits, by default 0, 1, 2, ..."""
    return [
        OriginProgram(to_origin_ir(circuit, qubits[: circuit.num_qubits] or None), Contents(circuit.num_qubits))
        for circuit in circuits
    ]


def check_places(circuits: Sequence[Circuit], qubits: Sequence[int], chip: Chip) -> None:
    """Args:
        circuits: bound.
        qubits: the chip's, one for each of a circuit.
        chip: with its living qubits and couplers.

    Raises: DeviceError if a circuit has more qubits than are given, or a gate where the chip has no living part.
    """
    for circuit in circuits:
        places = qubits or range(circuit.num_qubits)
        if circuit.num_qubits > len(places):
            raise DeviceError(f"The circuit has {circuit.num_qubits} qubits, and qubits names {list(places)}.")
        used = set(places[: circuit.num_qubits])
        if dead := sorted(used - set(chip.qubits)):
            raise DeviceError(
                f"Qubit(s) {dead} of chip {chip.name} are not alive; `find_blocks` names places that are."
            )
        for operation in circuit.operations:
            # Couplers are listed with the smaller qubit first.
            edge = tuple(sorted(places[qubit] for qubit in operation.qubits))
            if len(edge) == 2 and edge not in chip.edges:
                raise DeviceError(
                    f"{operation.gate_name} would need a living coupler between qubits {edge[0]} and {edge[1]} of chip "
                    f"{chip.name}. Name other qubits (`find_blocks` finds some), or let the cloud map the circuit."
                )


def structure_of(circuits: Sequence[Circuit]) -> tuple[Structure, Circuit]:
    """Return gates and qubits that all of them share, and the first that has them; only angles may differ.

    Circuits that only flip qubits, as those of known outcome do, need no couplers: they fit wherever the others do.
    Raises: DeviceError if they do not.
    """
    found = [
        (circuit.num_qubits, tuple((operation.gate_name, operation.qubits) for operation in circuit.operations))
        for circuit in circuits
    ]
    # The structure of the job is that of the first circuit with more than X gates; all others are held against it.
    first = next((number for number, (_, gates) in enumerate(found) if any(name != "X" for name, _ in gates)), 0)
    size, whole = found[first]
    for number, (own_size, gates) in enumerate(found):
        if own_size != size or (gates != whole and any(name != "X" for name, _ in gates)):
            raise DeviceError(
                f"Side by side go circuits that differ in nothing but angles; circuit {number} of the job has other "
                f"gates than circuit {first}. Send them in jobs of their own, or without side_by_side."
            )
    return found[first], circuits[first]


def side_by_side(circuits: Sequence[Circuit], blocks: Sequence[tuple[int, ...]]) -> list[OriginProgram]:
    """Return programs that hold as many circuits as there are blocks, circuit k of a program on block k."""
    programs = []
    for first in range(0, len(circuits), len(blocks)):
        group = circuits[first : first + len(blocks)]
        size = group[0].num_qubits
        # One circuit on all blocks' qubits: circuit `place` has its qubit q as place * size + q.
        whole = Circuit(
            size * len(group),
            tuple(
                replace(operation, qubits=tuple(place * size + qubit for qubit in operation.qubits))
                for place, circuit in enumerate(group)
                for operation in circuit.operations
            ),
        )
        qubits = [qubit for block in blocks[: len(group)] for qubit in block]
        programs.append(OriginProgram(to_origin_ir(whole, qubits), Contents(size, len(group))))
    return programs


# Which circuits the programs of a job hold, in a few characters of the job's id, so that any process can read
# results.
#
# An id is "<task>@<layout>": "9A3F@4x200" is the task 9A3F with 200 programs of one circuit on 4 qubits each, and in
# "9A3F@8:5x40,8:2x1" 40 programs hold 5 circuits on 8 qubits each, side by side, and one holds 2.


_GROUP = re.compile(r"([1-9]\d{0,3})(?::([1-9]\d{0,3}))?x([1-9]\d{0,3})")


@dataclass(frozen=True)
class Contents:
    """One program: circuits of equal size, circuit k measured into bits k num_qubits and following."""

    num_qubits: int
    num_circuits: int = 1

    @property
    def num_bits(self) -> int:
        """Classical bits of the program."""
        return self.num_qubits * self.num_circuits


def suffix_of(programs: Iterable[Contents]) -> str:
    """Return what is put behind the task's own id."""
    # Runs of equal programs, not all equal ones: the order of the programs is what the layout must keep.
    groups = ((contents, sum(1 for _ in group)) for contents, group in itertools.groupby(programs))
    return "@" + ",".join(
        f"{one.num_qubits}x{count}" if one.num_circuits == 1 else f"{one.num_qubits}:{one.num_circuits}x{count}"
        for one, count in groups
    )


def split_id(job_id: str) -> tuple[str, list[Contents] | None]:
    """Return task and layout; None in place of the layout for an id as the cloud itself shows it.

    Raises: JobError if there is no id, or its layout cannot be read.
    """
    # From the right, since the cloud's own ids may hold an @ one day; a layout never does.
    task, mark, layout = job_id.rpartition("@") if "@" in job_id else (job_id, "", "")
    if not task:
        raise JobError(f"origin has no job {job_id!r}; its ids are those of the cloud, with @ and a layout behind.")
    if not mark:
        return task, None
    programs: list[Contents] = []
    for text in layout.split(","):
        match = _GROUP.fullmatch(text)
        if match is None:
            raise JobError(f"origin has no job {job_id!r}: {text!r} is no layout of circuits, as 4x200 is.")
        programs += [Contents(int(match[1]), int(match[2] or 1))] * int(match[3])
    return task, programs

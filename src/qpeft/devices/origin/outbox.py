"""What became of each submission, in one small file per ticket, so that it is known after whoever sent it died.

This process notes that it prepares a submission, then that it is handed over to a worker; the worker notes that it
sends it, and then what came of it. Each note replaces the one before in one step.
"""

from __future__ import annotations

import hashlib
import json
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qpeft.devices.journal import default_path
from qpeft.devices.journal.owner import is_alive, this_process
from qpeft.devices.origin.worker import HANDED_OVER, REFUSED, SENDING, SENT, write_note
from qpeft.errors import JobError, RefusedError

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
        """Of the note. The name is a hash: a ticket may have any characters."""
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

        Raises: as `prepare`; RefusedError also if another process took this one for dead and gave the submission up.
        """
        if ticket is not None and self._read(ticket)["state"] != PREPARING:
            raise RefusedError("Another process has given this submission up, so it was not sent.")
        self._write(ticket, HANDED_OVER, f"{socket.gethostname()} {pid} {started:.2f}")
        return None if ticket is None else self.path(ticket)

    def refuse(self, ticket: str | None, why: str) -> None:
        """Note that nothing was sent and nothing will be. Raises: as `prepare`."""
        self._write(ticket, REFUSED, this_process(), why)

    def find(self, ticket: str) -> str | None:
        """The job of a ticket; None if it is certain that there is none.

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

"""Jobs of the emulator, in SQLite: in memory, or in a file that outlives the process."""

from __future__ import annotations

import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path

from qpeft.errors import DeviceError

VERSION = 1
_TABLE = """CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, body BLOB NOT NULL, accepted REAL NOT NULL,
    programs INTEGER NOT NULL, shots INTEGER NOT NULL, message TEXT NOT NULL, result TEXT)"""


@dataclass(frozen=True)
class StoredJob:
    """A job as accepted, and what came of it.

    Attributes:
        number: how many jobs were accepted before it.
        id: what the client knows it by.
        body: the request, as sent.
        accepted: seconds since 1970.
        programs: how many.
        shots: of each.
        message: why it failed or will fail; empty for none.
        result: JSON of the reply's results; None while it is computed, or if it failed.
    """

    number: int
    id: str
    body: bytes
    accepted: float
    programs: int
    shots: int
    message: str = ""
    result: str | None = None


class Store:
    """Jobs that survive: every change is on disk when a method returns. Safe to share between threads.

    Raises: DeviceError if the file cannot be opened or is of another version.
    """

    def __init__(self, path: Path | None) -> None:
        # One connection for all threads, behind a lock; isolation_level=None makes every statement its own transaction.
        self._lock = threading.Lock()
        try:
            self._database = sqlite3.connect(str(path or ":memory:"), check_same_thread=False, isolation_level=None)
        except sqlite3.Error as error:
            raise DeviceError(f"Cannot keep jobs in {path}: {error}. Name another file with --store.") from error
        try:
            # A new file says 0.
            version = self._database.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, VERSION):
                raise sqlite3.DatabaseError(f"it was written by version {version} of the emulator, this is {VERSION}")
            self._database.execute(_TABLE)
            self._database.execute(f"PRAGMA user_version = {VERSION}")
        except sqlite3.Error as error:
            self._database.close()
            raise DeviceError(f"Cannot keep jobs in {path}: {error}. Name another file with --store.") from error

    def add(self, job_id: str, body: bytes, accepted: float, programs: int, shots: int, message: str) -> StoredJob:
        """Keep a new job and give it its number.

        Args:
            job_id: new.
            body: the request as it came.
            accepted: when, seconds since the epoch.
            programs: how many.
            shots: of each.
            message: why the job is going to fail; empty for one that will not.
        """
        with self._lock:
            # Under the same lock as the insert. Jobs are never deleted, so the count is the next number.
            number = self._database.execute("SELECT COUNT(*) FROM jobs").fetchone()[0]
            job = StoredJob(number, job_id, body, accepted, programs, shots, message)
            row = (number, job_id, body, accepted, programs, shots, message)
            self._database.execute("INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, NULL)", row)
            return job

    def get(self, job_id: str) -> StoredJob | None:
        """Return one job, None if it was never accepted."""
        with self._lock:
            row = self._database.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
        return None if row is None else StoredJob(*row)

    def all(self) -> list[StoredJob]:
        """Return every job in the order of acceptance."""
        with self._lock:
            rows = self._database.execute("SELECT * FROM jobs ORDER BY number").fetchall()
        return [StoredJob(*row) for row in rows]

    def finish(self, job_id: str, result: str) -> None:
        """Keep what came out, unless the job has failed or was cancelled before."""
        self._end("UPDATE jobs SET result = ? WHERE id = ? AND message = ''", result, job_id)

    def fail(self, job_id: str, message: str) -> None:
        """Keep why nothing came out, unless something has."""
        self._end("UPDATE jobs SET message = ? WHERE id = ? AND message = '' AND result IS NULL", message, job_id)

    def cancel(self, job_id: str, message: str) -> None:
        """Keep that nothing is wanted any more, whatever has come out, unless the job has failed before."""
        self._end("UPDATE jobs SET message = ?, result = NULL WHERE id = ? AND message = ''", message, job_id)

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._database.close()

    def _end(self, statement: str, value: str, job_id: str) -> None:
        with self._lock:
            self._database.execute(statement, (value, job_id))

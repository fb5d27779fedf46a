"""The SQLite file of a journal: checked before it is touched, shared by threads and processes, safe at power cuts."""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from platformdirs import user_data_path

from qpeft.errors import JournalError

FILE_NAME = "journal.sqlite"
SECONDS_FOR_LOCK = 60.0


def default_path() -> Path:
    """Return where the user's journal is, or would be; nothing is made.

    That is `journal.sqlite` in the folder `qpeft` of the user's data folder: $XDG_DATA_HOME or ~/.local/share; on macOS
    ~/Library/Application Support; on Windows %LOCALAPPDATA%.
    """
    place = user_data_path("qpeft", appauthor=False) / FILE_NAME
    # Versions before platformdirs had another place for a relative $XDG_DATA_HOME, for $XDG_DATA_HOME on macOS, and for
    # a changed %LOCALAPPDATA%.
    if sys.platform == "darwin":
        folder = Path.home() / "Library/Application Support"
    elif sys.platform == "win32":
        folder = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local")
    else:
        folder = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share")
    former = folder / "qpeft" / FILE_NAME
    # It holds jobs that were paid for, so one that an earlier version wrote elsewhere goes on where it is.
    return former if former.is_file() and not place.exists() else place


class Database:
    """One journal file, opened.

    A file that is damaged, newer than this program or somebody else's is refused before anything is written to it.

    Args:
        path: of the file.
        create: make the file if it is missing.

    Raises: JournalError, here and in every use, if the file cannot be used.
    """

    def __init__(self, path: Path, *, create: bool) -> None:
        self.path = path
        self._lock, self._process = threading.RLock(), os.getpid()
        with journal_errors(path):
            _make_file(path, create=create)
            _check_file(path)
            # Backward passes run in threads of their own; the lock keeps them apart.
            self._connection = sqlite3.connect(
                path, timeout=SECONDS_FOR_LOCK, isolation_level=None, check_same_thread=False
            )
            with self.transaction() as connection:
                create_tables(connection)
            # SQLite does not wait for its lock here, and two processes may make the file at once.
            deadline = time.monotonic() + SECONDS_FOR_LOCK
            while True:
                is_last = time.monotonic() > deadline
                try:
                    self._connection.execute("PRAGMA journal_mode = WAL")
                    break
                except sqlite3.OperationalError as error:
                    if is_last or "locked" not in str(error):
                        raise
                time.sleep(0.01)

    @contextmanager
    def transaction(self, *, outlives_power_cut: bool = True) -> Iterator[sqlite3.Connection]:
        """All or nothing, one writer at a time; on disk even if the power fails, which costs milliseconds, unless not.

        What is not would only be done again: a plan, a result that the device still has. Nothing is lost when only the
        process dies, and the next transaction that outlives a power cut takes all earlier ones with it.
        Raises: JournalError if the file cannot be written.
        """
        with self.reading() as connection:
            connection.execute(f"PRAGMA synchronous = {'FULL' if outlives_power_cut else 'NORMAL'}")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.commit()
            except BaseException:
                if connection.in_transaction:
                    connection.rollback()
                raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Lend the connection, for statements that change nothing. Raises: JournalError if the file cannot be read."""
        # SQLite forbids a connection on both sides of a fork: the two would break each other's locks.
        if os.getpid() != self._process:
            raise JournalError(
                f"The journal {self.path} was opened before this process was forked; open it again here."
            )
        with self._lock, journal_errors(self.path):
            yield self._connection

    def close(self) -> None:
        """Let the file go."""
        self._connection.close()


@contextmanager
def journal_errors(path: Path) -> Iterator[None]:
    """Turn what SQLite and the file system say into a JournalError that names the file and what to do."""
    try:
        yield
    except OSError as error:
        raise JournalError(f"The journal {path} cannot be opened: {error.strerror or error}.") from error
    except (sqlite3.OperationalError, sqlite3.DatabaseError) as error:
        if isinstance(error, (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError)):
            raise  # our own mistake
        reason = str(error)
        if "full" in reason:
            message = (
                f"The disk under the journal {path} is full, so the last change was not recorded; all earlier ones are "
                "kept. Make room and start again: nothing is sent twice."
            )
        elif "malformed" in reason or "not a database" in reason:
            message = str(damaged(path, reason))
        elif "locked" in reason or "busy" in reason:
            message = f"Another process has held the journal {path} for {SECONDS_FOR_LOCK:.0f} seconds ({reason})."
        else:
            message = f"The journal {path} cannot be used: {reason}. What it held is unchanged."
        raise JournalError(message) from error


def damaged(path: Path, what: str) -> JournalError:
    """Return the error for a file whose content is not what was written."""
    return JournalError(
        f"The journal {path} is damaged ({what}). It was not changed. Keep a copy; put a backup in its place, or "
        "choose another with --journal. Jobs that only this file knows can still be looked up at the device."
    )


def read_checked(path: Path, text: str, checksum: int) -> Any:
    """Return what a stored text holds: a distribution, or a list of replies.

    Args:
        path: of the journal, for the error.
        text: JSON.
        checksum: CRC-32 of the text, stored beside it: a damaged result is an error, never a value.

    Raises: JournalError if it is not what was written.
    """
    if zlib.crc32(text.encode()) != checksum:
        raise damaged(path, "a result differs from its checksum")
    return json.loads(text)


def _make_file(path: Path, *, create: bool) -> None:
    """Make the file with its tables, whole or not at all, if it is missing and `create` allows it."""
    if path.is_dir():
        raise JournalError(f"{path} is a folder; name a file in it with --journal.")
    if path.exists():
        return
    if not create:
        raise JournalError(f"There is no journal at {path}. Put it back, or say which one with --journal.")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Made whole under another name: what a kill leaves of a file that is being made could not be looked at without the
    # right to change it. Readable by the user alone, as mkstemp makes it: results are derived from the user's data.
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    os.close(handle)
    new = Path(name)
    try:
        with closing(sqlite3.connect(new, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            create_tables(connection)
            connection.commit()
            connection.execute("PRAGMA journal_mode = WAL")
        try:
            os.link(new, path)
        except FileExistsError:
            return  # another process was faster, and its file may be in use
        except OSError:  # a file system without links
            new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _check_file(path: Path) -> None:
    """Look at the file without the right to change it. Raises: JournalError if it is not ours, newer or damaged."""
    # A connection that may write would merge the log of another version's file into it.
    with closing(
        sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=SECONDS_FOR_LOCK)
    ) as connection:
        application, version, tables = (
            connection.execute(query).fetchone()[0]
            for query in ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
        )
        # An empty file is taken for a new one.
        if application != APPLICATION and (application or version or tables):
            raise JournalError(
                f"{path} is a database, but no journal of qpeft. It was not changed; choose another file."
            )
        if version > VERSION:
            raise JournalError(
                f"The journal {path} has version {version}, and this qpeft knows versions up to {VERSION}. "
                "It was not changed. Use the newer qpeft, or another file."
            )
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise damaged(path, verdict)


# Tables of the journal. Whoever changes them raises VERSION and adds the step from the version before.


VERSION = 3
APPLICATION = 0x71706A6C
"""Marks the file as ours ("qpjl"), in SQLite's header."""

# What came and is not used, since its order cannot be trusted: a list of replies, each a list of distributions (JSON).
# The key stands first, as SQLite stores it: its own check of older versions mistakes the columns otherwise.
REJECTED = """CREATE TABLE rejected (
    batch INTEGER NOT NULL REFERENCES batches, checksum INTEGER NOT NULL, at REAL NOT NULL, job_id TEXT,
    reason TEXT NOT NULL, replies TEXT NOT NULL, PRIMARY KEY (batch, checksum)) WITHOUT ROWID"""
TABLES = (
    """CREATE TABLE calls (
        id INTEGER PRIMARY KEY, run TEXT NOT NULL, step INTEGER NOT NULL, module TEXT NOT NULL, call INTEGER NOT NULL,
        part TEXT NOT NULL, hash TEXT NOT NULL, UNIQUE (run, step, module, call, part))""",
    """CREATE TABLE batches (
        number INTEGER PRIMARY KEY AUTOINCREMENT, call_id INTEGER NOT NULL REFERENCES calls, hash TEXT NOT NULL,
        device TEXT NOT NULL, options TEXT NOT NULL, calibration TEXT, shots INTEGER, num_circuits INTEGER NOT NULL,
        state TEXT NOT NULL, job_id TEXT, ticket TEXT, message TEXT NOT NULL DEFAULT '', owner TEXT,
        changed_at REAL NOT NULL)""",
    "CREATE INDEX batches_by_call ON batches (call_id)",
    # What a batch holds, position by position; the distribution (JSON, with its CRC-32) comes when it arrives. A marker
    # is a circuit that nobody asked for, with the bit string that it must give.
    """CREATE TABLE circuits (
        batch INTEGER NOT NULL REFERENCES batches, position INTEGER NOT NULL, hash TEXT NOT NULL,
        num_qubits INTEGER NOT NULL, distribution TEXT, checksum INTEGER, marker TEXT,
        PRIMARY KEY (batch, position)) WITHOUT ROWID""",
    "CREATE INDEX circuits_by_hash ON circuits (hash)",
    # Which result answers which circuit of a call: several entries may point to one.
    """CREATE TABLE entries (
        call_id INTEGER NOT NULL REFERENCES calls, number INTEGER NOT NULL, batch INTEGER NOT NULL,
        position INTEGER NOT NULL, PRIMARY KEY (call_id, number)) WITHOUT ROWID""",
    # Every change of state: an old job id stays readable after the batch was sent again.
    """CREATE TABLE history (
        batch INTEGER NOT NULL REFERENCES batches, at REAL NOT NULL, state TEXT NOT NULL, job_id TEXT,
        message TEXT NOT NULL)""",
    "CREATE INDEX history_by_batch ON history (batch)",
    # Kept beside the batches rather than summed up from them, as it is read before every submission.
    """CREATE TABLE spent (
        run TEXT NOT NULL, device TEXT NOT NULL, circuits INTEGER NOT NULL, shots INTEGER NOT NULL,
        seconds REAL NOT NULL, PRIMARY KEY (run, device)) WITHOUT ROWID""",
    REJECTED,
)

UPGRADES = (
    ("ALTER TABLE batches ADD COLUMN ticket TEXT",),
    ("ALTER TABLE circuits ADD COLUMN marker TEXT", REJECTED),
)
"""Statements from version 1 to 2, from 2 to 3."""


def create_tables(connection: sqlite3.Connection) -> None:
    """Within the caller's transaction: all tables, or what an older version lacks; nothing if they are there."""
    is_ours = connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION
    version = connection.execute("PRAGMA user_version").fetchone()[0] if is_ours else 0
    for statement in TABLES if version == 0 else itertools.chain(*UPGRADES[version - 1 :]):
        connection.execute(statement)
    if version != VERSION:
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {VERSION}")

"""Tables of the journal. Whoever changes them raises VERSION and adds the step from the version before."""

from __future__ import annotations

import itertools
import sqlite3

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
"""From version 1 to 2, and so on."""


def create_tables(connection: sqlite3.Connection) -> None:
    """Within the caller's transaction: all tables, or what an older version lacks; nothing if they are there."""
    is_ours = connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION
    version = connection.execute("PRAGMA user_version").fetchone()[0] if is_ours else 0
    for statement in TABLES if version == 0 else itertools.chain(*UPGRADES[version - 1 :]):
        connection.execute(statement)
    if version != VERSION:
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {VERSION}")

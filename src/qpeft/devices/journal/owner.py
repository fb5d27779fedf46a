"""Who is sending a batch: a process by name, so that others can tell whether it still lives."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil  # type: ignore[import-untyped]

SAME_START = 5.0
"""Seconds within which two start times are one: psutil derives them from a clock that may be set meanwhile."""
_in_flight: list[tuple[Path, int]] = []
"""Batches that threads of this process are sending; twice what two of them try to send, of which one will not."""


def this_process() -> str:
    """Return host, process id and start time of this process."""
    pid = os.getpid()
    return f"{socket.gethostname()} {pid} {psutil.Process(pid).create_time():.2f}"


def is_alive(owner: str | None) -> bool:
    """Whether the process runs, on this host; one on another host cannot be seen, so it counts as gone."""
    if owner is None:
        return False
    # From the right: the name of a host may hold spaces.
    host, pid, start = owner.rsplit(" ", 2)
    if host != socket.gethostname():
        return False
    try:
        process = psutil.Process(int(pid))
        # The start tells a process from a later one with its id; a zombie has ended, and only waits for its parent.
        is_same = abs(process.create_time() - float(start)) < SAME_START
        return bool(is_same and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def is_this_process(owner: str | None) -> bool:
    """Whether the owner is the process that asks."""
    # Not by equal names: the start time in them moves when the clock is set.
    return owner is not None and owner.split(" ")[-2] == str(os.getpid()) and is_alive(owner)


@contextmanager
def sending(journal: Path, number: int) -> Iterator[None]:
    """While this process is in the call that sends the batch, `is_sending` says so."""
    _in_flight.append((journal, number))
    try:
        yield
    finally:
        _in_flight.remove((journal, number))


def is_sending(owner: str | None, journal: Path, number: int) -> bool:
    """Whether the batch's owner is still in the call; of another process only its life can be seen.

    Args:
        owner: as `this_process` named it; None for nobody.
        journal: file that has the batch.
        number: of the batch.
    """
    if is_this_process(owner):
        return (journal, number) in _in_flight
    return is_alive(owner)

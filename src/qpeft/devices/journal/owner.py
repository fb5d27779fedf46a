"""Who is sending a batch: a process by name, so that others can tell whether it still lives."""

from __future__ import annotations

import os
import socket

import psutil  # type: ignore[import-untyped]

SAME_START = 5.0
"""Seconds within which two start times are one: psutil derives them from a clock that may be set meanwhile."""


def this_process() -> str:
    """Host, process id and start time of this process."""
    pid = os.getpid()
    return f"{socket.gethostname()} {pid} {psutil.Process(pid).create_time():.2f}"


def is_alive(owner: str | None) -> bool:
    """Whether the process runs, on this host; one on another host cannot be seen, so it counts as gone."""
    if owner is None:
        return False
    host, pid, start = owner.rsplit(" ", 2)
    if host != socket.gethostname():
        return False
    try:
        process = psutil.Process(int(pid))
        is_same = abs(process.create_time() - float(start)) < SAME_START
        return bool(is_same and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False

"""Memory: how much a run took, and errors that say what to lower where there is none left."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from qpeft.errors import MemoryLimitError

_CPU_ALLOCATOR = ("can't allocate memory", "not enough memory")
"""How torch words a failed allocation on the CPU, which is a RuntimeError like many others."""


def peak_memory(device: torch.device) -> int:
    """The most memory that this process has held, bytes: reserved by torch on a GPU, resident on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    try:
        import resource  # noqa: PLC0415  (not on Windows)
    except ImportError:
        import psutil  # noqa: PLC0415

        return int(psutil.Process().memory_info().peak_wset)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


@contextmanager
def memory_errors(doing: str, advice: str) -> Iterator[None]:
    """Raises: MemoryLimitError in place of whatever torch raises when memory runs out.

    Args:
        doing: what is tried inside, as "A training step".
        advice: what the user can do, a sentence.
    """
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
        if isinstance(error, MemoryLimitError) or not _ran_out(error):
            raise
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise MemoryLimitError(f"{doing} does not fit into memory. {advice} ({first_line})") from error


def _ran_out(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(mark in str(error) for mark in _CPU_ALLOCATOR)

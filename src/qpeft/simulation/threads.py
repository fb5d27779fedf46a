"""How many threads of torch work on what is small: one.

Threads of torch meet after every product. Where a core is busy with something else, they wait for one another for a
time slice each time, and a product that takes microseconds takes milliseconds. So nothing small is shared out here.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

SMALL = 2**17
"""Numbers: half a MiB in float32. What is made of no more is no faster with several threads worth the name."""
_lock = threading.Lock()
_users = 0
"""Python threads that are in a block now."""
_wanted = 1
"""What the first of them found set."""
_depth = threading.local()


@contextmanager
def one_thread() -> Iterator[None]:
    """This thread's products by torch in one thread, within this block; then in as many as before.

    Blocks may be nested, and Python's threads may be in some at once: what comes back is the setting from before the
    first of them, since a thread in which torch is new meanwhile starts with one.
    """
    global _users, _wanted  # noqa: PLW0603 - torch's own setting is the process's too
    if getattr(_depth, "inside", False):
        yield
        return
    with _lock:
        if not _users:
            _wanted = torch.get_num_threads()
        _users, threads = _users + 1, _wanted
    _depth.inside = True
    torch.set_num_threads(1)
    try:
        yield
    finally:
        _depth.inside = False
        with _lock:
            _users -= 1
        torch.set_num_threads(threads)


def threads_for(numbers: int, device: torch.device) -> AbstractContextManager[None]:
    """`one_thread()` if a state of so many numbers on this device is small, else the user's own setting."""
    return one_thread() if device.type == "cpu" and numbers <= SMALL else nullcontext()

"""The interpreter compiled for this processor: once per version of its sources, then loaded from a cache on disk."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numba as nb
from numba.core import config

from qpeft.simulation.kernel import interpreter, weights

logger = logging.getLogger(__name__)


class Kernel(NamedTuple):
    """Compiled functions of `interpreter` and `weights`; none of them holds the Python lock."""

    prepare: Callable[..., None]
    forward: Callable[..., None]
    backward: Callable[..., None]
    finish: Callable[..., None]
    workspace_vectors: Callable[[Any], int]


@lru_cache(maxsize=1)
def compiled_kernel() -> Kernel:
    """Compiles at the first call of a process, or loads what an earlier process has compiled."""
    integers, doubles, floats, rows = nb.int64[::1], nb.float64[::1], nb.float32[::1], nb.float32[:, ::1]
    tables = (integers, nb.int32[::1], doubles, doubles, floats)
    started = time.perf_counter()
    if not _cache_folder(config.CACHE_DIR).exists():
        logger.warning("Compiling the simulation kernel, once for all circuits: 10 to 20 seconds.")
    kernel = Kernel(
        prepare=_compile(weights.prepare, nb.void(integers, doubles, floats, doubles, floats)),
        forward=_compile(interpreter.forward, nb.void(*tables, rows, rows, nb.int64, nb.int64, floats)),
        backward=_compile(
            interpreter.backward, nb.void(*tables, rows, rows, rows, nb.int64, nb.int64, doubles, floats)
        ),
        finish=_compile(weights.finish, nb.void(integers, doubles, nb.float64[:, ::1], doubles, floats)),
        workspace_vectors=_compile(interpreter.workspace_vectors, nb.int64(integers)),
    )
    logger.debug("The simulation kernel was ready after %.1f s.", time.perf_counter() - started)
    return kernel


def _compile(dispatcher: Any, signature: Any) -> Any:
    function, options = dispatcher.py_func, {"nogil": True, "error_model": "numpy"}
    previous = config.CACHE_DIR
    # numba looks at the file of `function` only, not at those it calls, so each version of all has its own folder.
    config.CACHE_DIR = str(_cache_folder(previous))
    try:
        compiled = nb.njit(cache=True, **options)(function)
    except (RuntimeError, OSError):
        logger.warning("No folder for compiled code can be written; every process compiles the simulation kernel anew.")
        compiled = nb.njit(**options)(function)
    finally:
        config.CACHE_DIR = previous
    compiled.compile(signature)
    return compiled


def _cache_folder(chosen: str) -> Path:
    """One folder per version of the kernel's sources, under numba's own cache folder if the user has chosen one."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    root = Path(chosen) if chosen else Path.home() / ".cache" / "qpeft"
    return root / f"kernel-{digest.hexdigest()[:16]}"

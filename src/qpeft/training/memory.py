"""How much memory a run took, and errors that say what to lower where it does not suffice."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch

from qpeft.data import Encoded, lengths
from qpeft.errors import MemoryLimitError
from qpeft.evaluation.loss import TOKENS_PER_BATCH
from qpeft.training.sections import Recipe

_CPU_ALLOCATOR = ("can't allocate memory", "not enough memory")
"""How torch words a failed allocation on the CPU, which is a RuntimeError like many others."""


def peak_memory(device: torch.device) -> int:
    """Return the most bytes that this process has held: reserved by torch on a GPU, resident on the CPU."""
    if device.type == "cuda":
        # Reserved, not allocated: what torch keeps for later is lost to other processes as well.
        return torch.cuda.max_memory_reserved(device)
    try:
        import resource  # noqa: PLC0415  (not on Windows)
    except ImportError:
        import psutil  # type: ignore[import-untyped]  # noqa: PLC0415

        return int(psutil.Process().memory_info().peak_wset)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    return peak if sys.platform == "darwin" else 1024 * peak


def tokens_per_evaluation(recipe: Recipe, training: Sequence[Encoded]) -> int:
    """Return the padded tokens of one evaluation batch: no more than the largest training batch has."""
    return min(TOKENS_PER_BATCH, recipe.training.batch_size * max(lengths(training)))


def training_memory(recipe: Recipe) -> AbstractContextManager[None]:
    """Raises: MemoryLimitError, which says how a training step takes less."""
    options = recipe.training
    # Fewer examples at once and more batches a step train on the same gradients, so that comes first.
    ways = [f"data.max_length ({recipe.data.max_length})"]
    if options.batch_size > 1:
        ways.insert(0, f"training.batch_size ({options.batch_size}) and raise training.gradient_accumulation as much")
    checkpointing = "" if options.gradient_checkpointing else ", or set training.gradient_checkpointing: true"
    return memory_errors("A training step", f"Lower {', or '.join(ways)}{checkpointing}.")


def evaluation_memory(recipe: Recipe) -> AbstractContextManager[None]:
    """Raises: MemoryLimitError, which says how measuring takes less."""
    shorter = f"data.max_length ({recipe.data.max_length})"
    answers = ", or evaluation.max_new_tokens" if recipe.evaluation.task_name else ""
    return memory_errors("Measuring held-out examples", f"Lower {shorter}{answers}.")


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
        out = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if isinstance(error, MemoryLimitError) or not (out or any(mark in str(error) for mark in _CPU_ALLOCATOR)):
            raise
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise MemoryLimitError(f"{doing} does not fit into memory. {advice} ({first_line})") from error

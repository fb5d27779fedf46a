"""Compiles the interpreter at first use and runs it on torch tensors, over threads.

Tokens are split into partitions by their number alone. Every partition sums its weight gradients by itself, and the sums
are added in order, so results do not depend on how many threads share the work.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numba as nb
import numpy as np
import torch
from torch import Tensor

from qpeft.circuits import Circuit
from qpeft.simulation.kernel import interpreter
from qpeft.simulation.kernel.lanes import LANES
from qpeft.simulation.kernel.program import Program, compile_program

logger = logging.getLogger(__name__)

MAX_PARTITIONS = 32
MIN_TOKENS_PER_PARTITION = 4 * LANES
TOKENS_PER_THREAD = 16 * LANES
"""Fewer tokens than this are not worth a second thread."""


class _Compiled(NamedTuple):
    prepare: Callable[..., None]
    forward: Callable[..., None]
    backward: Callable[..., None]
    finish: Callable[..., None]
    workspace_vectors: Callable[[Any], int]


def values(circuit: Circuit, inputs: Tensor, weights: Tensor) -> Tensor:
    """Expectations (tokens, num_observables) for float32 CPU inputs (tokens, num_inputs) and weights."""
    program, compiled = compile_program(circuit), _compiled()
    angles, coefficients = _tables(program, compiled, weights)
    out = torch.empty(len(inputs), circuit.num_observables)
    rows, results = inputs.numpy(), out.numpy()

    def work(first: int, last: int, workspace: Any) -> None:
        compiled.forward(
            program.code, program.index, program.numbers, angles, coefficients, rows, results, first, last, workspace
        )

    _share(program, compiled, len(rows), lambda _, first, last, space: work(first, last, space))
    return out


def gradients(circuit: Circuit, inputs: Tensor, weights: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Vector-Jacobian product: gradients of sum(values * grad) by inputs and by weights."""
    program, compiled = compile_program(circuit), _compiled()
    angles, coefficients = _tables(program, compiled, weights)
    input_grad, weight_grad = torch.zeros_like(inputs), torch.zeros_like(weights)
    rows, grads, results = inputs.numpy(), grad.numpy(), input_grad.numpy()
    partials = np.zeros((len(_partitions(len(rows))), program.num_sums))

    def work(partition: int, first: int, last: int, workspace: Any) -> None:
        compiled.backward(
            program.code, program.index, program.numbers, angles, coefficients,
            rows, grads, results, first, last, partials[partition], workspace,
        )  # fmt: skip

    _share(program, compiled, len(rows), work)
    compiled.finish(program.code, program.numbers, partials, np.zeros_like(angles), weight_grad.numpy())
    return input_grad, weight_grad


def _tables(program: Program, compiled: _Compiled, weights: Tensor) -> tuple[Any, Any]:
    angles = np.empty(program.num_angles)
    coefficients = np.empty(program.num_coefficients, np.float32)
    compiled.prepare(program.code, program.numbers, weights.numpy(), angles, coefficients)
    return angles, coefficients


@lru_cache(maxsize=1024)
def _partitions(tokens: int) -> list[tuple[int, int]]:
    """First and last row of each partition: whole blocks, as equal as can be."""
    blocks = -(-tokens // LANES)
    count = max(1, min(MAX_PARTITIONS, tokens // MIN_TOKENS_PER_PARTITION))
    cuts = [LANES * (blocks * part // count) for part in range(count)] + [tokens]
    return list(zip(cuts[:-1], cuts[1:], strict=True))


def _share(program: Program, compiled: _Compiled, tokens: int, work: Callable[[int, int, int, Any], None]) -> None:
    """Runs `work(partition, first, last, workspace)` on all partitions, over as many threads as torch may use."""
    partitions = _partitions(tokens)
    threads = max(1, min(torch.get_num_threads(), len(partitions), tokens // TOKENS_PER_THREAD))
    vectors = compiled.workspace_vectors(program.code)
    remaining = iter(list(enumerate(partitions)))
    lock = threading.Lock()

    def worker() -> None:
        workspace = _aligned(vectors * LANES)
        while True:
            with lock:
                item = next(remaining, None)
            if item is None:
                return
            work(item[0], *item[1], workspace)

    helpers = [_pool().submit(worker) for _ in range(threads - 1)]
    worker()
    for helper in helpers:
        helper.result()


def _aligned(size: int) -> Any:
    """Uninitialised float32 numbers that start on a cache line, so that no vector straddles two."""
    line = 64
    memory = np.empty(size + line // 4, np.float32)
    return memory[(-memory.ctypes.data % line) // 4 :][:size]


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, (os.cpu_count() or 1) - 1), thread_name_prefix="qpeft-simulation")


# Threads do not survive a fork; the child starts its own.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)


@lru_cache(maxsize=1)
def _compiled() -> _Compiled:
    """The interpreter, compiled for this processor; from the cache on disk where there is one."""
    started = time.perf_counter()
    integers, doubles, floats, rows = nb.int64[::1], nb.float64[::1], nb.float32[::1], nb.float32[:, ::1]
    index, tables = nb.int32[::1], (nb.int64[::1], nb.int32[::1], nb.float64[::1], nb.float64[::1], nb.float32[::1])
    signatures = {
        interpreter.prepare: nb.void(integers, doubles, floats, doubles, floats),
        interpreter.forward: nb.void(*tables, rows, rows, nb.int64, nb.int64, floats),
        interpreter.backward: nb.void(*tables, rows, rows, rows, nb.int64, nb.int64, doubles, floats),
        interpreter.finish: nb.void(integers, doubles, nb.float64[:, ::1], doubles, floats),
        interpreter.workspace_vectors: nb.int64(integers),
    }
    del index
    functions = [_compile(dispatcher.py_func, signature) for dispatcher, signature in signatures.items()]
    seconds = time.perf_counter() - started
    if seconds > 3:
        logger.info("Compiled the simulation kernel in %.0f s; later processes load it from the cache.", seconds)
    return _Compiled(*functions)


def _compile(function: Any, signature: Any) -> Any:
    return nb.njit(signature, nogil=True, error_model="numpy")(function)

"""Compiles the interpreter at first use and runs it on torch tensors, over threads.

Tokens are split into partitions by their number alone. Every partition sums its weight gradients by itself, and the
sums are added in order, so results do not depend on how many threads share it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qpeft.circuits import Circuit
from qpeft.simulation.kernel.compilation import Kernel, compiled_kernel
from qpeft.simulation.kernel.lanes import LANES
from qpeft.simulation.kernel.program import KernelProgram, compile_program

MAX_PARTITIONS = 32
MIN_TOKENS_PER_PARTITION = 8 * LANES
TOKENS_PER_THREAD = 64 * LANES
"""Fewer tokens than this are not worth a second thread, which must wait while those of torch still spin."""
MAX_IDLE_NUMBERS = 2**20
"""A thread keeps its workspace for the next call unless it is this much larger than needed."""

_local = threading.local()


def values(circuit: Circuit, inputs: Tensor, weights: Tensor) -> Tensor:
    """Expectations (tokens, num_observables) for float32 CPU inputs (tokens, num_inputs) and weights.

    Args:
        circuit: that is evaluated.
        inputs: (tokens, num_inputs), radians, float32.
        weights: (num_weights,), radians, float32.
    """
    program, compiled = compile_program(circuit), compiled_kernel()
    angles, coefficients = _tables(program, compiled, weights)
    out = torch.empty(len(inputs), circuit.num_observables, dtype=torch.float32)
    rows, results = inputs.detach().numpy(), out.numpy()

    def work(first: int, last: int, workspace: Any) -> None:
        compiled.forward(
            program.code, program.index, program.numbers, angles, coefficients, rows, results, first, last, workspace
        )

    _share(program, compiled, len(rows), lambda _, first, last, space: work(first, last, space))
    return out


def gradients(circuit: Circuit, inputs: Tensor, weights: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Vector-Jacobian product: gradients of sum(values * grad) by inputs and by weights.

    Args:
        circuit: that is evaluated.
        inputs: (tokens, num_inputs), radians, float32.
        weights: (num_weights,), radians, float32.
        grad: from above, (tokens, num_observables).
    """
    program, compiled = compile_program(circuit), compiled_kernel()
    angles, coefficients = _tables(program, compiled, weights)
    input_grad, weight_grad = (torch.zeros(t.shape, dtype=torch.float32) for t in (inputs, weights))
    rows, grads, results = inputs.detach().numpy(), grad.contiguous().numpy(), input_grad.numpy()
    partials = np.zeros((len(_partitions(len(rows))), program.num_sums))

    def work(partition: int, first: int, last: int, workspace: Any) -> None:
        compiled.backward(
            program.code, program.index, program.numbers, angles, coefficients,
            rows, grads, results, first, last, partials[partition], workspace,
        )  # fmt: skip

    _share(program, compiled, len(rows), work)
    compiled.finish(program.code, program.numbers, partials, np.zeros_like(angles), weight_grad.numpy())
    return input_grad, weight_grad


def _tables(program: KernelProgram, compiled: Kernel, weights: Tensor) -> tuple[Any, Any]:
    angles = np.empty(program.num_angles)
    coefficients = np.empty(program.num_coefficients, np.float32)
    # A copy: what numpy has seen can never be resized again, as sharded training does with the memory of weights.
    compiled.prepare(program.code, program.numbers, weights.detach().clone().numpy(), angles, coefficients)
    return angles, coefficients


@lru_cache(maxsize=1024)
def _partitions(tokens: int) -> list[tuple[int, int]]:
    """First and last row of each partition: whole blocks, as equal as can be."""
    blocks = -(-tokens // LANES)
    count = max(1, min(MAX_PARTITIONS, tokens // MIN_TOKENS_PER_PARTITION))
    cuts = [LANES * (blocks * part // count) for part in range(count)] + [tokens]
    return list(pairwise(cuts))


def _share(program: KernelProgram, compiled: Kernel, tokens: int, work: Callable[[int, int, int, Any], None]) -> None:
    """Runs `work(partition, first, last, workspace)` on all partitions, over as many threads as torch may use."""
    partitions = _partitions(tokens)
    threads = max(1, min(torch.get_num_threads(), len(partitions), tokens // TOKENS_PER_THREAD))
    vectors = compiled.workspace_vectors(program.code)
    remaining = iter(list(enumerate(partitions)))
    lock = threading.Lock()

    def worker() -> None:
        workspace = _workspace(vectors * LANES)
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


def _workspace(size: int) -> Any:
    """Uninitialised float32 numbers, one array per thread, on a cache line, so that no vector straddles two."""
    line = 64
    memory = getattr(_local, "memory", None)
    if memory is None or len(memory) < size or len(memory) > 4 * size + MAX_IDLE_NUMBERS:
        raw = np.empty(size + line // 4, np.float32)
        memory = _local.memory = raw[(-raw.ctypes.data % line) // 4 :][:size]
    return memory


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, (os.cpu_count() or 1) - 1), thread_name_prefix="qpeft-simulation")


# Threads do not survive a fork; the child starts its own.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)

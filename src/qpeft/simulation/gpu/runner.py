"""Launches a circuit's kernels on torch tensors: a program, and a row of gradients by angles, per block of tokens."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from qpeft.circuits import Circuit
from qpeft.simulation.compiler import compile_plan
from qpeft.simulation.gpu.module import Kernels, kernels_of
from qpeft.simulation.gpu.operations import TABLE_BLOCK, fill_table

THREADS_PER_WARP = 32
FEW_QUBITS = 6
"""Up to here a thread holds 16 amplitudes of state and costate, beyond 8: the most that is far from spilling."""


@dataclass(frozen=True, eq=False)
class _Tables:
    """A layout's arrays on a device, double precision; `from_weights` with a row per weight."""

    constants: Tensor
    from_weights: Tensor
    row_weights: Tensor


def values(circuit: Circuit, inputs: Tensor, weights: Tensor) -> Tensor:
    """Expectations (tokens, num_observables) for float32 inputs (tokens, num_inputs) and weights on one device.

    Args:
        circuit: that is evaluated.
        inputs: (tokens, num_inputs), radians, float32.
        weights: (num_weights,), radians, float32.
    """
    kernels = _kernels(circuit)
    out = inputs.new_empty(len(inputs), circuit.num_observables)
    if len(inputs):
        with _on(inputs.device):
            shared, table = _table(circuit, kernels, weights)
            kernels.forward[_grid(kernels, inputs)](
                inputs.contiguous(), shared, table, out, len(inputs), **_options(circuit)
            )
    return out


def gradients(circuit: Circuit, inputs: Tensor, weights: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Vector-Jacobian product: gradients of sum(values * grad) by inputs and by weights.

    Args:
        circuit: that is evaluated.
        inputs: (tokens, num_inputs), radians, float32.
        weights: (num_weights,), radians, float32.
        grad: from above, (tokens, num_observables).
    """
    kernels = _kernels(circuit)
    input_grad, tables = inputs.new_zeros(inputs.shape), _tables(circuit, kernels, inputs.device)
    grid = _grid(kernels, inputs)
    partials = inputs.new_zeros(*grid, len(kernels.layout.rows))
    if len(inputs):
        with _on(inputs.device):
            shared, table = _table(circuit, kernels, weights)
            kernels.backward[grid](
                inputs.contiguous(), shared, table, grad.contiguous(), input_grad, partials, len(inputs),
                **_options(circuit),
            )  # fmt: skip
    # A plain sum over programs: its order depends on nothing but their number.
    return input_grad, (partials.sum(0, dtype=torch.float64) @ tables.row_weights).to(weights.dtype)


def launch_shape(circuit: Circuit) -> tuple[int, int]:
    """Tokens and warps per program: as many tokens as one warp holds, or one token and the warps that it needs."""
    if compile_plan(circuit).is_closed_form:
        return THREADS_PER_WARP, 1
    amplitudes = THREADS_PER_WARP * (16 if circuit.num_qubits <= FEW_QUBITS else 8)
    tokens = max(1, min(THREADS_PER_WARP, amplitudes >> circuit.num_qubits))
    return tokens, max(1, 2**circuit.num_qubits // amplitudes)


def _kernels(circuit: Circuit) -> Kernels:
    return kernels_of(circuit, launch_shape(circuit)[0])


def _options(circuit: Circuit) -> dict[str, int | bool]:
    # Said, because Triton is about to change its default: products and sums fuse, as they do in the CPU kernel.
    return {"num_warps": launch_shape(circuit)[1], "enable_fp_fusion": True}


def _table(circuit: Circuit, kernels: Kernels, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Arguments (entries,) in double precision, and their cos and sin (entries, 2)."""
    tables = _tables(circuit, kernels, weights.device)
    entries = len(tables.constants)
    shared, table = torch.empty_like(tables.constants), weights.new_empty(entries, 2)
    fill_table[(-(-entries // TABLE_BLOCK.value),)](
        tables.constants, tables.from_weights, weights.contiguous(), shared, table, entries, circuit.num_weights,
        num_warps=TABLE_BLOCK.value // THREADS_PER_WARP,
    )  # fmt: skip
    return shared, table


def _tables(circuit: Circuit, kernels: Kernels, device: torch.device) -> _Tables:
    return _cached_tables(circuit, kernels.tokens, device)


@lru_cache(maxsize=256)
def _cached_tables(circuit: Circuit, tokens: int, device: torch.device) -> _Tables:
    layout = kernels_of(circuit, tokens).layout
    arrays = (layout.constants, layout.from_weights.T, layout.row_weights)
    return _Tables(*(torch.from_numpy(array).to(device).contiguous() for array in arrays))


def _grid(kernels: Kernels, inputs: Tensor) -> tuple[int]:
    return (-(-len(inputs) // kernels.tokens),)


def _on(device: torch.device) -> AbstractContextManager[object]:
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()

"""Which path evaluates a circuit on a GPU: the Triton kernels, or torch, which is said once."""

from __future__ import annotations

import importlib.util
import warnings
from functools import cache
from types import ModuleType

from qpeft.circuits import Circuit
from qpeft.simulation import torch_path

MAX_QUBITS = 11
"""Largest circuit for which kernels are used: the last whose state does not spill from registers. docs/gpu.md has the
counts, and times."""


def gpu_path(circuit: Circuit) -> ModuleType:
    """The module that evaluates `circuit` in float32 on a GPU: `gpu.runner` or `torch_path`."""
    if importlib.util.find_spec("triton") is None:
        _say_once(
            "Triton is not installed, so circuits on the GPU are simulated in torch, layer by layer. Install triton."
        )
        return torch_path
    if circuit.num_qubits > MAX_QUBITS:
        _say_once(
            f"The GPU kernels end at {MAX_QUBITS} qubits, beyond which a token's state does not fit the registers. "
            f"Circuits with more are simulated in torch, layer by layer. The first one has {circuit.num_qubits}."
        )
        return torch_path
    from qpeft.simulation.gpu import runner  # noqa: PLC0415 - only here is a kernel needed

    return runner


@cache
def _say_once(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=3)

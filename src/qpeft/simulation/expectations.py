"""Expectation values of circuits: exact, batched, differentiable in inputs and weights.

The operation keeps inputs and weights only. Its backward pass recomputes the final state and walks
back with the adjoint method, in blocks of tokens. Where it is computed follows from the tensors:

    float32 on the CPU, up to 16 qubits    the compiled kernel
    float32 on a GPU, up to 11 qubits      the Triton kernels
    anything else                          torch
"""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import dataclass
from functools import cache, lru_cache
from types import ModuleType

import torch
from jaxtyping import Float
from torch import Tensor

from qpeft.circuits import Circuit
from qpeft.errors import SimulationError
from qpeft.simulation import torch_path
from qpeft.simulation.autograd import AbstractOperation, row_values
from qpeft.simulation.checks import check_memory, check_shapes
from qpeft.simulation.gpu.selection import gpu_path

KERNEL_MAX_QUBITS = 16
"""Beyond this a block of tokens no longer fits any cache, and the kernel loses its advantage."""
LARGE_ANGLE = 1e5
"""Angles beyond this are taken modulo 4 pi first, in double precision."""


def expectations(
    circuit: Circuit, inputs: Float[Tensor, "*batch num_inputs"], weights: Float[Tensor, " num_weights"]
) -> Float[Tensor, "*batch num_observables"]:
    """Expectation value of every observable of `circuit`, for every row of `inputs`.

    Args:
        circuit: what to evaluate.
        inputs: angles in radians, one row per evaluation.
        weights: trained angles in radians, shared by all rows.

    Returns:
        Values in [-1, 1] in the order of `circuit.observables`, in the type of `inputs`, differentiable once in both
        `inputs` and `weights`, in reverse mode, and under torch.func (vmap, grad, vjp, jacrev). Computed in float32, or
        in float64 if both are float64. Angles that are not finite raise on the CPU; elsewhere, where looking would
        stall the device, they make the values NaN.

    Raises:
        SimulationError: a shape does not fit the circuit, an angle is NaN or infinite, inputs and weights are on
            different devices or no real floating type, or the state does not fit into memory.
        GradientError: the second derivative is asked for, or one in forward mode.
    """
    check_shapes(circuit, inputs, weights)
    check_memory(circuit, inputs.device, inputs.dtype)
    double = inputs.dtype == weights.dtype == torch.float64
    flat = inputs.reshape(inputs.shape[:-1].numel(), circuit.num_inputs)
    flat, angles = (tensor.to(torch.float64 if double else torch.float32) for tensor in (flat, weights))
    values = row_values(_Exact(circuit), flat, angles)
    return values.reshape(*inputs.shape[:-1], circuit.num_observables).to(inputs.dtype)


@dataclass(frozen=True)
class _Exact(AbstractOperation):
    circuit: Circuit

    @property
    def num_values(self) -> int:
        return self.circuit.num_observables

    def values(self, rows: Tensor, weights: Tensor) -> Tensor:
        rows, weights = _within_range(rows, "input"), _within_range(weights, "weight")
        values: Tensor = _path(self.circuit, rows).values(self.circuit, rows, weights)
        return values

    def gradients(self, kept: Tensor, weights: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        rows, weights = _within_range(kept, "input"), _within_range(weights, "weight")
        gradients: tuple[Tensor, Tensor] = _path(self.circuit, rows).gradients(self.circuit, rows, weights, grad)
        return gradients


def _within_range(angles: Tensor, name: str) -> Tensor:
    """Contiguous angles as they are, or modulo 4 pi if some are large.

    Raises: SimulationError if one is NaN or infinite.
    """
    angles = angles.contiguous()
    if angles.device.type != "cpu" or not angles.numel():
        return angles
    low, high = (bound.item() for bound in torch.aminmax(angles))
    if low >= -LARGE_ANGLE and high <= LARGE_ANGLE:  # false for NaN
        return angles
    if bad := int((~angles.isfinite()).sum()):
        raise SimulationError(
            f"{bad} of {angles.numel()} {name} angles are NaN or infinite, so there is no value to compute. They come "
            "from an earlier layer or a diverged update: lower the learning rate or clip gradients."
        )
    return torch_path.principal(angles.double()).to(angles.dtype)


def _path(circuit: Circuit, inputs: Tensor) -> ModuleType:
    """The module that evaluates: `kernel.runner`, `gpu.runner` or `torch_path`."""
    if inputs.dtype == torch.float32 and inputs.device.type == "cuda":
        return gpu_path(circuit)
    if circuit.num_qubits > KERNEL_MAX_QUBITS:
        _say_cost(circuit.num_qubits, inputs.dtype.itemsize)
        return torch_path
    return _kernel() if inputs.device.type == "cpu" and inputs.dtype == torch.float32 else torch_path


@cache
def _say_cost(num_qubits: int, bytes_per_number: int) -> None:
    """Warn, once for each size and type in a process, of circuits beyond the kernel."""
    mebibytes = 2 ** (num_qubits + 1) * bytes_per_number / 2**20
    warnings.warn(
        f"A circuit of {num_qubits} qubits is beyond the compiled kernel ({KERNEL_MAX_QUBITS}) and is simulated in "
        f"torch: {mebibytes:,.0f} MiB for the state of one row, several times that with gradients, "
        "and twice the time for each qubit more. For many rows take fewer qubits, several circuits side by side, or "
        "another simulator by set_quantum_device (docs/simulation.md).",
        RuntimeWarning,
        stacklevel=2,
    )


@lru_cache(maxsize=1)
def _kernel() -> ModuleType:
    """The compiled kernel, or the torch path where numba is missing, which is said once."""
    if importlib.util.find_spec("numba") is None:
        warnings.warn(
            "numba is not installed, so circuits are simulated in torch, about 10 times slower. Install numba.",
            RuntimeWarning,
            stacklevel=2,
        )
        return torch_path
    from qpeft.simulation.kernel import runner  # noqa: PLC0415 - importing numba takes half a second

    return runner

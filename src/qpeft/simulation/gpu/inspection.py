"""Registers and spills of a circuit's kernels, compiled for a GPU that need not be there."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qpeft.circuits import Circuit
from qpeft.simulation.gpu.module import kernels_of

_COMMON = {"inputs": "*fp32", "shared": "*fp64", "table": "*fp32"}
_SIGNATURES = {
    "forward": {**_COMMON, "values": "*fp32", "count": "i32"},
    "backward": {**_COMMON, "grads": "*fp32", "input_grads": "*fp32", "partials": "*fp32", "count": "i32"},
}


@dataclass(frozen=True)
class KernelResources:
    """What one thread of a compiled kernel needs.

    Attributes:
        registers: of 255 that a thread can have.
        spill_bytes: of memory per thread, for what registers do not hold.
        shared_bytes: of shared memory per program; 0 where bits are exchanged by registers and shuffles alone.
    """

    registers: int
    spill_bytes: int
    shared_bytes: int


def resources(circuit: Circuit, which: str, *, tokens: int, num_warps: int, capability: int = 90) -> KernelResources:
    """Compiles a kernel with the compiler and assembler that Triton brings along; needs no GPU.

    Args:
        circuit: whose kernel.
        which: "forward" or "backward".
        tokens: per program.
        num_warps: per program.
        capability: of the GPU, ten times its compute capability: 80 for A100, 90 for H100.
    """
    kernel = _compiled(getattr(kernels_of(circuit, tokens), which), _SIGNATURES[which], num_warps, capability)
    usage = _usage(kernel.asm["cubin"])
    return KernelResources(usage["REG"], usage["STACK"], int(kernel.metadata.shared))


def _compiled(function: Any, signature: dict[str, str], num_warps: int, capability: int) -> Any:
    import triton  # noqa: PLC0415
    from triton.backends.compiler import GPUTarget  # noqa: PLC0415
    from triton.compiler import ASTSource  # noqa: PLC0415

    options = {"num_warps": num_warps, "enable_fp_fusion": True}
    return triton.compile(ASTSource(function, signature, {}), target=GPUTarget("cuda", capability, 32), options=options)


def _usage(binary: bytes) -> dict[str, int]:
    """What `cuobjdump` lists, by name. A stack is used for nothing but spills: the kernels have no arrays."""
    from triton import knobs  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "kernel.cubin")
        file.write_bytes(binary)
        command = [knobs.nvidia.cuobjdump.path, "-res-usage", str(file)]
        report = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {name: int(number) for name, number in re.findall(r"\b([A-Z]+):(\d+)", report)}

"""A circuit's kernels as Triton functions, from source that is written for it.

The alternative, one kernel that reads tables of steps as constants, needs lists of tensors, which Triton has not in all
of its versions, and compiles the same code in the end: once per structure of a circuit, whatever its weights are.
"""

from __future__ import annotations

import hashlib
import linecache
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from qpeft.circuits import Circuit
from qpeft.simulation.compiler import compile_plan
from qpeft.simulation.gpu.backward import BackwardWriter
from qpeft.simulation.gpu.forward import ForwardWriter
from qpeft.simulation.gpu.layout import Layout, layout_of

_HEADER = [
    "import triton.language as tl",
    "from qpeft.simulation.gpu.operations import bit, cos_and_sin, exchanged, launched, over_all, per_token, sign",
]


@dataclass(frozen=True, eq=False)
class Kernels:
    """Both kernels of a circuit, for blocks of `tokens` tokens; Triton compiles each at its first launch."""

    layout: Layout
    forward: Any
    backward: Any
    tokens: int


@lru_cache(maxsize=256)
def kernels_of(circuit: Circuit, tokens: int) -> Kernels:
    """The kernels of a circuit. Cached, since circuits are compared by value."""
    layout = layout_of(compile_plan(circuit))
    functions = _defined_by(source_of(circuit, tokens))
    return Kernels(layout, functions["forward"], functions["backward"], tokens)


def source_of(circuit: Circuit, tokens: int) -> str:
    """Source of a Python module that defines `forward` and `backward`."""
    plan = compile_plan(circuit)
    layout = layout_of(plan)
    writers = ForwardWriter(plan, layout, tokens), BackwardWriter(plan, layout, tokens)
    blocks = ["\n".join(lines) for lines in (_HEADER, *(writer.lines() for writer in writers))]
    return "\n\n\n".join(blocks) + "\n"


def _defined_by(source: str) -> dict[str, Any]:
    """The names that a module's source defines.

    Triton reads a function's source through `inspect`, which finds it in `linecache` under a name that is no file.
    """
    name = f"<qpeft circuit {hashlib.sha256(source.encode()).hexdigest()[:16]}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    namespace: dict[str, Any] = {"__name__": "qpeft.simulation.gpu.generated"}
    exec(compile(source, name, "exec"), namespace)
    return namespace

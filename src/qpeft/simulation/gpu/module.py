"""Generated source as Triton functions."""

from __future__ import annotations

import hashlib
import linecache
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from qpeft.circuits import Circuit
from qpeft.simulation.compiler import compile_plan
from qpeft.simulation.gpu.layout import Layout, layout_of
from qpeft.simulation.gpu.source import BACKWARD, FORWARD, Writer


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
    plan = compile_plan(circuit)
    layout = layout_of(plan)
    functions = load(Writer(plan, layout, tokens).module())
    return Kernels(layout, functions[FORWARD], functions[BACKWARD], tokens)


def load(source: str) -> dict[str, Any]:
    """The names that a module's source defines.

    Triton reads a function's source through `inspect`, which finds it in `linecache` under a name that is no file.
    """
    name = f"<qpeft circuit {hashlib.sha256(source.encode()).hexdigest()[:16]}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    namespace: dict[str, Any] = {"__name__": "qpeft.simulation.gpu.generated"}
    exec(compile(source, name, "exec"), namespace)  # noqa: S102 - written by `source`, from numbers only
    return namespace

"""Exact, differentiable evaluation of circuits; noise in `simulation.noise`, finite shots in `simulation.shots`."""

from qpeft.simulation.compiler import compile_plan, dead_weights
from qpeft.simulation.expectations import expectations
from qpeft.simulation.plan import Plan

__all__ = ["Plan", "compile_plan", "dead_weights", "expectations"]

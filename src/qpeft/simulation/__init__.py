"""Exact, differentiable evaluation of circuits."""

from qpeft.simulation.compiler import compile_plan, dead_weights
from qpeft.simulation.expectations import expectations
from qpeft.simulation.plan import Plan

__all__ = ["Plan", "compile_plan", "dead_weights", "expectations"]

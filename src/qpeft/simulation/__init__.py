"""Exact, differentiable evaluation of circuits."""

from qpeft.simulation.expectations import expectations

__all__ = ["expectations"]

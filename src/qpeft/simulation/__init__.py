"""Exact, differentiable evaluation of circuits; noise in `simulation.noise`, finite shots in `simulation.shots`."""

from qpeft.simulation.compiler import compile_plan, dead_weights
from qpeft.simulation.expectations import expectations
from qpeft.simulation.plan import SimulationPlan
from qpeft.simulation.vectors import apply_circuit

__all__ = ["SimulationPlan", "apply_circuit", "compile_plan", "dead_weights", "expectations"]

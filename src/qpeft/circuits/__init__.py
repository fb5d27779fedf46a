"""Quantum circuits as plain data: what is computed, never how or where. Nothing here needs torch."""

from qpeft.circuits import ansatz
from qpeft.circuits.circuit import Angle, Circuit, Input, Operation, Weight, bind, unbind
from qpeft.circuits.drawing import circuit_text, draw_circuit
from qpeft.circuits.gates import GATES, Gate

__all__ = [
    "GATES",
    "Angle",
    "Circuit",
    "Gate",
    "Input",
    "Operation",
    "Weight",
    "ansatz",
    "bind",
    "circuit_text",
    "draw_circuit",
    "unbind",
]

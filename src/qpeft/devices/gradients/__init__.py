"""Gradients through a device, each a class that says in advance how many circuits it takes.

parameter-shift   exact in expectation; 2 or 4 circuits per angle, input row and measurement basis
spsa              two circuits per random direction, unbiased up to the square of the step, and noisy
simulated         no circuits: values from the device, derivatives from our simulator at the same angles
"""

from qpeft.devices.gradients.base import AbstractGradient, Products, Wanted
from qpeft.devices.gradients.choice import GRADIENTS, GradientChoice, find_gradient
from qpeft.devices.gradients.parameter_shift import ParameterShift
from qpeft.devices.gradients.simulated import Simulated
from qpeft.devices.gradients.spsa import Spsa

__all__ = [
    "GRADIENTS",
    "AbstractGradient",
    "GradientChoice",
    "ParameterShift",
    "Products",
    "Simulated",
    "Spsa",
    "Wanted",
    "find_gradient",
]

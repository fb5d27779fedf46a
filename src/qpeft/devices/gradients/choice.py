"""Gradients by their names."""

from __future__ import annotations

import difflib
from typing import TypeAlias

from qpeft.devices.gradients.base import AbstractGradient
from qpeft.devices.gradients.parameter_shift import ParameterShift
from qpeft.devices.gradients.simulated import Simulated
from qpeft.devices.gradients.spsa import Spsa
from qpeft.errors import GradientError

GRADIENTS: dict[str, AbstractGradient] = {
    "parameter-shift": ParameterShift(),
    "spsa": Spsa(),
    "simulated": Simulated(),
}
GradientChoice: TypeAlias = str | AbstractGradient | None
"""A name in `GRADIENTS`, one with other options such as `Spsa(num_directions=4)`, or None for no gradient."""


def find_gradient(choice: GradientChoice) -> AbstractGradient | None:
    """The gradient that is meant. Raises: GradientError for an unknown name, naming the nearest."""
    if choice is None or isinstance(choice, AbstractGradient):
        return choice
    if choice not in GRADIENTS:
        near = difflib.get_close_matches(str(choice), GRADIENTS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"Known: {', '.join(GRADIENTS)}, or None."
        raise GradientError(f"There is no gradient {choice!r} through a device; {hint}")
    return GRADIENTS[choice]

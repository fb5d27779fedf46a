"""What circuits could do and how they would train, measured at random angles before any training."""

from qpeft.analysis.portrait import Gradients, Portrait, Resources, portrait, resources
from qpeft.analysis.random_angles import (
    Estimate,
    GradientSize,
    entangling_capability,
    expressibility,
    gradient_size,
    reached_states,
)
from qpeft.analysis.spectrum import Spectrum, spectrum

__all__ = [
    "Estimate",
    "GradientSize",
    "Gradients",
    "Portrait",
    "Resources",
    "Spectrum",
    "entangling_capability",
    "expressibility",
    "gradient_size",
    "portrait",
    "reached_states",
    "resources",
    "spectrum",
]

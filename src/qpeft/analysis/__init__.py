"""What circuits could do and how they would train, measured at random angles before any training."""

from qpeft.analysis.gradients import GradientSize, gradient_size
from qpeft.analysis.portrait import Gradients, Portrait, portrait
from qpeft.analysis.resources import Resources, resources
from qpeft.analysis.spectrum import Spectrum, spectrum
from qpeft.analysis.states import Estimate, entangling_capability, expressibility, reached_states

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

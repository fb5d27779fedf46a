"""Circuits on imperfect hardware: noise models as data, density matrices, and a cheap linear noise for training."""

from qpeft.simulation.noise.channels import depolarising_from_fidelity
from qpeft.simulation.noise.counter import SampleKey
from qpeft.simulation.noise.density import noisy_expectations
from qpeft.simulation.noise.linear import LinearNoise
from qpeft.simulation.noise.model import Damping, EdgeNoise, NoiseModel, QubitNoise, ReadoutError

__all__ = [
    "Damping",
    "EdgeNoise",
    "LinearNoise",
    "NoiseModel",
    "QubitNoise",
    "ReadoutError",
    "SampleKey",
    "depolarising_from_fidelity",
    "noisy_expectations",
]

"""A cheap noise for training: every observable is stretched and shifted, and read with a finite number of shots.

Noise pulls expectation values towards a constant, nearly in proportion: noisy = slope * exact + offset fits well where
the same gates act whatever the angles are. Costs nothing next to the circuit and has no limit on qubits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from qpeft.errors import NoiseError, ShotsError
from qpeft.simulation.checks import check_shots
from qpeft.simulation.noise.counter import SampleKey, Stream


@dataclass(frozen=True)
class LinearNoise:
    """noisy = slope * exact + offset per observable, plus shot noise; equal ones compare and hash equal.

    Raises: NoiseError if the lengths differ or a number is not finite.
    """

    slopes: tuple[float, ...]
    offsets: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "slopes", tuple(self.slopes))
        object.__setattr__(self, "offsets", tuple(self.offsets))
        if len(self.slopes) != len(self.offsets):
            raise NoiseError(f"Each observable has a slope and an offset; got {len(self.slopes)}, {len(self.offsets)}.")
        if not all(map(math.isfinite, self.slopes + self.offsets)):
            raise NoiseError(f"Slopes and offsets must be finite; got {self.slopes} and {self.offsets}.")

    @classmethod
    def fit(
        cls, exact: Float[Tensor, "*batch num_observables"], noisy: Float[Tensor, "*batch num_observables"]
    ) -> LinearNoise:
        """Least squares per observable, over pairs of an exact and a noisy value of the same circuit and angles.

        Raises: NoiseError if the shapes differ, a value is not finite, or exact values of an observable do not vary.
        """
        if exact.shape != noisy.shape or exact.ndim < 1:
            raise NoiseError(f"Values come in pairs; got shapes {tuple(exact.shape)} and {tuple(noisy.shape)}.")
        x, y = (values.detach().double().reshape(-1, exact.shape[-1]) for values in (exact, noisy))
        if not (torch.isfinite(x).all() and torch.isfinite(y).all()):
            raise NoiseError("Slopes and offsets are fitted to finite values; got NaN or infinite ones.")
        x_mean, y_mean = (values.sum(0) / max(1, len(values)) for values in (x, y))
        variance = (x - x_mean).square().sum(0)
        flat = (variance <= 1e-12 * max(1, len(x))).nonzero().flatten().tolist()
        if flat:
            raise NoiseError(f"Exact values of observable(s) {flat} do not vary, so no slope fits; vary the inputs.")
        slopes = ((x - x_mean) * (y - y_mean)).sum(0) / variance
        return cls(tuple(slopes.tolist()), tuple((y_mean - slopes * x_mean).tolist()))

    def apply(
        self, exact: Float[Tensor, "*batch num_observables"], *, shots: int | None = None, key: SampleKey | None = None
    ) -> Float[Tensor, "*batch num_observables"]:
        """Values as a machine with this noise would return them.

        Shot noise is Gaussian of standard deviation sqrt((1 - z**2) / shots), z the noisy mean; values may therefore
        leave [-1, 1] by a little, and those of one token are independent, which those of one circuit are not.

        Args:
            exact: values to disturb, for instance from `expectations`.
            shots: samples per circuit, `None` for infinitely many.
            key: of the random numbers; needed exactly if there are shots.

        Returns:
            Same shape and type. The gradient is that of slope * exact + offset: shot noise is passed straight through.

        Raises:
            NoiseError: the last axis is not the number of observables.
            ShotsError: shots below 1, or shots without a key.
        """
        if exact.ndim < 1 or exact.shape[-1] != len(self.slopes):
            raise NoiseError(f"This noise is for {len(self.slopes)} observable(s); got shape {tuple(exact.shape)}.")
        values = exact * exact.new_tensor(self.slopes) + exact.new_tensor(self.offsets)
        if shots is None:
            return values
        remedy = "For infinitely many shots pass shots=None."
        shots = check_shots(shots, "Shot noise is that of single samples", remedy)
        if key is None:
            raise ShotsError(f"Shot noise needs a SampleKey, which names its random numbers; got None. {remedy}")
        mean = values.detach().double()
        deviation = ((1 - mean.square()).clamp(min=0) / shots).sqrt()
        return values + (deviation * Stream(key).normals(*exact.shape).to(mean.device)).to(values.dtype)

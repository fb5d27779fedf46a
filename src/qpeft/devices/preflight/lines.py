"""How values on a chip follow exact ones: a straight line, and what it misses."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qpeft.errors import DeviceError

RealArray = npt.NDArray[np.float64]

LEAST_SPREAD = 1e-6
"""Exact values that vary less than this say nothing about their angles."""


@dataclass(frozen=True)
class Line:
    """noisy = slope * exact + offset, by least squares.

    Attributes:
        slope, offset: of the line; slope 0 and the mean of the noisy values if the exact ones do not vary.
        correlation: of noisy and exact values, from -1 to 1; 0 if either does not vary.
        residual: standard deviation of what the line misses.
        spread: standard deviation of the exact values over the rows.
    """

    slope: float
    offset: float
    correlation: float
    residual: float
    spread: float


def fit_line(exact: npt.ArrayLike, noisy: npt.ArrayLike) -> Line:
    """The line through pairs of values of one observable.

    Args:
        exact, noisy: one entry per row of inputs, (rows,).

    Raises: DeviceError if there are fewer than two pairs, or a value is not finite.
    """
    x, y = (np.asarray(values, dtype=np.float64) for values in (exact, noisy))
    if x.ndim != 1 or x.shape != y.shape or len(x) < 2:
        raise DeviceError(f"A line needs at least two pairs of values; got shapes {x.shape} and {y.shape}.")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise DeviceError("A line is fitted to finite values; got NaN or infinite ones.")
    dx, dy = x - x.mean(), y - y.mean()
    spread, noisy_spread = float(x.std()), float(y.std())
    if spread < LEAST_SPREAD:
        return Line(0.0, float(y.mean()), 0.0, noisy_spread, spread)
    slope = float(dx @ dy / (dx @ dx))
    scale = math.sqrt(float(dx @ dx) * float(dy @ dy))
    correlation = float(dx @ dy) / scale if scale else 0.0
    residual = float(np.sqrt(np.mean((dy - slope * dx) ** 2)))
    return Line(slope, float(y.mean() - slope * x.mean()), correlation, residual, spread)

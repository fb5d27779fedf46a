"""A circuit as a Fourier series in its inputs: which frequencies it reaches, and how much of each.

A gate exp(-i x G / 2) whose generator has the eigenvalues +-1 adds one to the highest frequency of x each time that x
enters, so a value is sum_k c_k exp(i k . x) with whole numbers |k_p| <= uploads of input p (Schuld, Sweke and Meyer,
arXiv:2008.08605). Sampling every input at 2 uploads + 1 points of a turn gives all c_k exactly.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch

from qpeft.analysis.random_angles import freed, uniform
from qpeft.circuits import Circuit, Input
from qpeft.errors import CircuitError
from qpeft.simulation import expectations
from qpeft.simulation.threads import one_thread

MAX_POINTS = 10_000
"""Of the grid over all inputs; beyond that only single inputs are looked at."""
ZERO = 1e-9
"""Coefficients below this are rounding: values are of order 1, in float64."""


@dataclass(frozen=True)
class Spectrum:
    """Of all observables, over random weights.

    Attributes:
        amplitudes: [observable][input][frequency 0, 1, ...]: root mean square of the amplitude of waves in one input,
            the other inputs being random too.
        interactions: share of the variance over uniform inputs that lies in products of waves of 1, 2, ... num_inputs
            inputs, all observables together; None if the grid is too large, or nothing varies.
        reached: coefficients c_k of an observable that are not zero for some weights, mean over observables; None if
            the grid is too large.
        possible: coefficients that as many uploads could have at most.
    """

    amplitudes: tuple[tuple[tuple[float, ...], ...], ...]
    interactions: tuple[float, ...] | None
    reached: float | None
    possible: int

    @property
    def by_frequency(self) -> list[float]:
        """Root mean square amplitude of frequency 0, 1, ... over observables and inputs."""
        squares = torch.tensor(self.amplitudes, dtype=torch.float64).square()
        found: list[float] = squares.mean((0, 1)).sqrt().tolist()
        return found

    @property
    def dependence(self) -> list[list[float]]:
        """[observable][input]: standard deviation of the waves of that input alone, frequency 0 left out."""
        squares = torch.tensor(self.amplitudes, dtype=torch.float64).square()
        # A wave of amplitude a has the variance a^2 / 2.
        found: list[list[float]] = (squares[..., 1:].sum(-1) / 2).sqrt().tolist()
        return found

    @property
    def inputs_seen(self) -> float:
        """Inputs that an observable depends on, mean over observables."""
        return sum(value > ZERO for row in self.dependence for value in row) / len(self.amplitudes)


@one_thread()
def spectrum(circuit: Circuit, samples: int, generator: torch.Generator, *, grids: int = 10) -> Spectrum:
    """Return the Fourier series of every observable.

    Args:
        circuit: with inputs.
        samples: random weights, with random other inputs, per input.
        generator: of the weights and inputs.
        grids: random weights at which the whole grid of inputs is evaluated, where it has at most `MAX_POINTS` points.

    Raises: CircuitError if the circuit has no input, or one enters through a gate with frequencies other than 0 and 1.
    """
    uploads = count_uploads(circuit)
    possible = math.prod(2 * count + 1 for count in uploads)
    # 2 uploads + 1 points of a turn tell all frequencies up to the highest apart.
    points = [2 * count + 1 for count in uploads]
    turns = [2 * math.pi / count * torch.arange(count, dtype=torch.float64) for count in points]
    longest = max(turns, key=len)

    waves = []
    for place in range(len(uploads)):
        angles = uniform(circuit, samples, generator).repeat_interleave(len(longest), dim=0)
        angles[:, place] = longest.repeat(samples)
        values = expectations(freed(circuit), angles, angles.new_zeros(0)).reshape(samples, len(longest), -1)
        amplitudes = torch.fft.rfft(values, dim=1, norm="forward").abs()
        # A wave of frequency k > 0 has the amplitude |c_k| + |c_-k|, which are equal since values are real.
        amplitudes[:, 1:] *= 2
        waves.append(amplitudes.square().mean(0).sqrt().T)
    found = tuple(tuple(map(tuple, rows)) for rows in torch.stack(waves, dim=1).tolist())
    if possible > MAX_POINTS:
        return Spectrum(found, None, None, possible)

    # |c_k|^2 of every observable, then an axis per input, for each draw of the weights.
    grid, powers = torch.cartesian_prod(*turns).reshape(-1, len(uploads)), []
    for _ in range(grids):
        weights = uniform(circuit, 1, generator)[0, circuit.num_inputs :]
        values = expectations(circuit, grid, weights).T.reshape(-1, *points)
        # Not torch.fft.fftn, whose libraries take 7 axes at most.
        coefficients = np.fft.fftn(values.numpy(), axes=range(1, values.ndim), norm="forward")
        powers.append(torch.from_numpy(coefficients).abs().square())
    power = torch.stack(powers)
    reached = (power > ZERO**2).any(0).sum().item() / circuit.num_observables
    # How many entries of k are not zero tells how many inputs a product of waves is of.
    power, order = power.mean((0, 1)), torch.zeros(points, dtype=torch.int64)
    for axis, size in enumerate(points):
        order += torch.arange(size).clamp(max=1).reshape([-1 if other == axis else 1 for other in range(len(points))])
    sums = torch.zeros(len(points) + 1, dtype=torch.float64).index_add_(0, order.flatten(), power.flatten())[1:]
    total = sums.sum().item()
    return Spectrum(found, tuple((sums / total).tolist()) if total > ZERO**2 else None, reached, possible)


def count_uploads(circuit: Circuit) -> list[int]:
    """Return how many gates each input turns: its highest frequency. Raises: CircuitError as `spectrum`."""
    found: Counter[int] = Counter()
    for operation in circuit.operations:
        if isinstance(operation.angle, Input):
            levels = [level for level, _ in operation.gate.spectrum]
            if levels != [-1.0, 1.0]:
                raise CircuitError(
                    f"{operation.gate_name} reads input {operation.angle.index}, but spectra are made for inputs that "
                    "turn gates of frequency 1: RX, RY, RZ, RXX, RYY, RZZ."
                )
            found[operation.angle.index] += 1
    # A spectrum is over inputs: weights alone give one point.
    if not found:
        raise CircuitError("The circuit has no inputs, so it has no spectrum.")
    return [found[place] for place in range(circuit.num_inputs)]

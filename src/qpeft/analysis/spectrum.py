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
from jaxtyping import Float
from torch import Tensor

from qpeft.analysis.circuits import freed, uniform
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
        found: list[list[float]] = (squares[..., 1:].sum(-1) / 2).sqrt().tolist()
        return found

    @property
    def inputs_seen(self) -> float:
        """Inputs that an observable depends on, mean over observables."""
        return sum(value > ZERO for row in self.dependence for value in row) / len(self.amplitudes)


@one_thread()
def spectrum(circuit: Circuit, samples: int, generator: torch.Generator, *, grids: int = 10) -> Spectrum:
    """Fourier series of every observable.

    Args:
        samples: random weights, with random other inputs, per input.
        grids: random weights at which the whole grid of inputs is evaluated, where it has at most `MAX_POINTS` points.

    Raises: CircuitError if the circuit has no input, or one enters through a gate with frequencies other than 0 and 1.
    """
    uploads = count_uploads(circuit)
    possible = math.prod(2 * count + 1 for count in uploads)
    waves = [_wave_amplitudes(circuit, place, max(uploads), samples, generator) for place in range(len(uploads))]
    amplitudes = tuple(tuple(map(tuple, rows)) for rows in torch.stack(waves, dim=1).tolist())
    if possible > MAX_POINTS:
        return Spectrum(amplitudes, None, None, possible)
    powers = torch.stack([_grid_power(circuit, uploads, generator) for _ in range(grids)])
    reached = (powers > ZERO**2).any(0).sum().item() / circuit.num_observables
    return Spectrum(amplitudes, _interactions(powers.mean((0, 1))), reached, possible)


def count_uploads(circuit: Circuit) -> list[int]:
    """How many gates each input turns: its highest frequency. Raises: CircuitError as `spectrum`."""
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
    if not found:
        raise CircuitError("The circuit has no inputs, so it has no spectrum.")
    return [found[place] for place in range(circuit.num_inputs)]


def _turn(uploads: int) -> Float[Tensor, " points"]:
    points = 2 * uploads + 1
    return 2 * math.pi / points * torch.arange(points, dtype=torch.float64)


def _wave_amplitudes(
    circuit: Circuit, place: int, uploads: int, samples: int, generator: torch.Generator
) -> Float[Tensor, "num_observables frequencies"]:
    """Of waves in one input, root mean square over samples; a wave of frequency k > 0 has the amplitude 2 |c_k|."""
    turn = _turn(uploads)
    angles = uniform(circuit, samples, generator).repeat_interleave(len(turn), dim=0)
    angles[:, place] = turn.repeat(samples)
    values = expectations(freed(circuit), angles, angles.new_zeros(0)).reshape(samples, len(turn), -1)
    amplitudes = torch.fft.rfft(values, dim=1, norm="forward").abs()
    amplitudes[:, 1:] *= 2
    means: Tensor = amplitudes.square().mean(0).sqrt().T
    return means


def _grid_power(circuit: Circuit, uploads: list[int], generator: torch.Generator) -> Tensor:
    """|c_k|^2 of every observable, then an axis per input, at one draw of the weights."""
    grid = torch.cartesian_prod(*map(_turn, uploads)).reshape(-1, len(uploads))
    weights = uniform(circuit, 1, generator)[0, circuit.num_inputs :]
    values = expectations(circuit, grid, weights).T.reshape(-1, *[2 * count + 1 for count in uploads])
    # Not torch.fft.fftn, whose libraries take 7 axes at most.
    waves = np.fft.fftn(values.numpy(), axes=range(1, values.ndim), norm="forward")
    return torch.from_numpy(waves).abs().square()


def _interactions(power: Tensor) -> tuple[float, ...] | None:
    """Shares by how many entries of k are not zero, without k = 0."""
    order = torch.zeros(power.shape, dtype=torch.int64)
    for axis, size in enumerate(power.shape):
        nonzero = torch.arange(size).clamp(max=1)
        order += nonzero.reshape([-1 if other == axis else 1 for other in range(power.ndim)])
    sums = torch.zeros(power.ndim + 1, dtype=torch.float64).index_add_(0, order.flatten(), power.flatten())[1:]
    total = sums.sum().item()
    return tuple((sums / total).tolist()) if total > ZERO**2 else None

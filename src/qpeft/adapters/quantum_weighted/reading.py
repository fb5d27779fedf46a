"""From values of strings of Z to numbers: slopes, where angles start, and the calibrated reading."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import islice, product

import torch
from jaxtyping import Float
from torch import Tensor

from qpeft.adapters.quantum_weighted.config import QuantumWeightedConfig
from qpeft.circuits import Circuit
from qpeft.simulation import expectations
from qpeft.simulation.noise.counter import SampleKey, Stream


def slopes(circuit: Circuit, angles: Float[Tensor, "*batch angles"]) -> Float[Tensor, "*batch strings angles"]:
    """Return derivatives of all observables by all angles of a circuit of RY.

    Half the difference at a quarter turn either side is exact, since each angle turns at two frequencies.
    """
    shifts = torch.eye(angles.shape[-1]).to(angles) * (torch.pi / 2)
    shifted = angles[..., None, None, :] + torch.stack([shifts, -shifts])  # (*batch, 2, angles, angles)
    values = expectations(circuit, shifted, angles.new_empty(0))
    return ((values[..., 0, :, :] - values[..., 1, :, :]) / 2).transpose(-1, -2)


@lru_cache(maxsize=32)
def clifford_start(circuit: Circuit) -> tuple[float, ...] | None:
    """Return angles of 0 and pi/2 at which each angle moves one string of its own, with slope 1 or -1; None if unknown.

    There the circuit is of Clifford gates, so its state is a stabiliser state: a string of Z is 1, -1 or 0, and slopes
    are 1, -1 or 0 too. If they have full rank, every angle has a string that no other angle moves, so the numbers read
    are free numbers to first order, without an inverse that would multiply the noise of shots.
    """
    num_angles, num_qubits = circuit.num_inputs, circuit.num_qubits
    layers = -(-num_angles // num_qubits)
    # Whole layers first, all pi/2 before others: found at once for rings of 7 qubits or more, up to depth 3.
    patterns = [
        [angle for angle in layer_angles for _ in range(num_qubits)][:num_angles]
        for layer_angles in islice(product((torch.pi / 2, 0.0), repeat=layers), 64)
    ]
    stream = Stream(SampleKey(seed=0, module="Clifford points"))
    patterns += (torch.pi / 2 * (stream.uniforms(4096, num_angles) < 0.6)).tolist()
    for first in range(0, len(patterns), 64):
        some = patterns[first : first + 64]
        ranks = torch.linalg.matrix_rank(slopes(circuit, torch.tensor(some)), atol=0.1)
        if (ranks == num_angles).any():
            return tuple(some[int((ranks == num_angles).int().argmax())])
    return None


@dataclass
class Reading:
    """How expectation values q (groups, strings) become numbers y (groups, numbers).

    Attributes:
        origin: values at the start, (groups, strings).
        inverse: J^+ of the slope there, (groups, angles, strings), or None for the plain reading.
        slope: J, (groups, strings, angles).
        gain: factor of the numbers.
    """

    origin: Tensor
    inverse: Tensor | None
    slope: Tensor
    gain: float

    def numbers(self, q: Tensor) -> Tensor:
        """Return y of these values."""
        away = q - self.origin
        return self.gain * (away if self.inverse is None else torch.einsum("gks,gs->gk", self.inverse, away))

    def back(self, grad: Tensor) -> Tensor:
        """Return the gradient of q from that of y: the transpose of `numbers`."""
        return self.gain * (grad if self.inverse is None else torch.einsum("gks,gk->gs", self.inverse, grad))


def read_at(circuit: Circuit, start: Tensor, config: QuantumWeightedConfig) -> Reading:
    """Return how values of a circuit are read when angles start at `start`, (groups, angles).

    Args:
        circuit: of every group.
        start: radians, in the type that numbers shall have.
        config: with the kind of reading, gain and ridge.
    """
    # Exact values, also for a device: on a biased chip the update then starts slightly off zero.
    origin, slope = expectations(circuit, start, start.new_empty(0)), slopes(circuit, start)
    if config.reading == "plain":
        return Reading(origin, None, slope, config.gain)
    # Damped rather than cut off: a singular value beside a cut-off would fall on either side of it by rounding,
    # and two machines would read two adapters from one file.
    u, s, vh = torch.linalg.svd(slope.double(), full_matrices=False)
    damped = s / (s.square() + (config.ridge * s[:, :1]).square()).clamp_min(1e-30)
    inverse = (vh.transpose(1, 2) * damped[:, None]) @ u.transpose(1, 2)
    return Reading(origin, inverse.to(start.dtype), slope, config.gain)

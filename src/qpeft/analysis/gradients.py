"""How large gradients by circuit weights are over random angles; whether they vanish as circuits grow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from qpeft.analysis.angles import freed
from qpeft.circuits import Circuit
from qpeft.simulation import dead_weights, expectations
from qpeft.simulation.threads import one_thread


@dataclass(frozen=True)
class GradientSize:
    """Mean squares of derivatives by weights, over random angles and over the weights that can reach the value.

    At uniform angles the mean derivative is zero, so these are variances.

    Attributes:
        first: of the first observable, <Z_0>.
        mean: of the mean of all observables; `first` / n^2 where each of n has weights of its own.
    """

    first: float
    mean: float


@one_thread()
def gradient_size(circuit: Circuit, angles: Float[Tensor, "samples angles"]) -> GradientSize:
    """Over the given angles, rows of inputs followed by weights, radians.

    A circuit none of whose weights reaches the value has size 0.
    """
    angles = angles.detach().requires_grad_()
    values = expectations(freed(circuit), angles, angles.new_zeros(0))
    (first,) = torch.autograd.grad(values[:, 0].sum(), angles, retain_graph=True)
    (mean,) = torch.autograd.grad(values.mean(1).sum(), angles)
    only_first = replace(circuit, observables=circuit.observables[:1])
    return GradientSize(_mean_square(first, only_first), _mean_square(mean, circuit))


def decay_per_qubit(num_qubits: Sequence[int], sizes: Sequence[float]) -> float:
    """Factor by which a size changes with each qubit more: least squares in the logarithm. Below 1 it vanishes."""
    slope, _ = np.polyfit(num_qubits, np.log(sizes), 1)
    return math.exp(slope)


def _mean_square(gradients: Tensor, circuit: Circuit) -> float:
    dead = set(dead_weights(circuit))
    reaching = [circuit.num_inputs + weight for weight in range(circuit.num_weights) if weight not in dead]
    return gradients[:, reaching].square().mean().item() if reaching else 0.0

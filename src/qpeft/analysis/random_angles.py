"""What circuits do at random angles: the states that they reach, and how large their gradients are."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from qpeft.adapters.qtha import QthaConfig
from qpeft.adapters.qtha.bottleneck import CircuitBottleneck
from qpeft.circuits import Circuit, Input, Weight
from qpeft.simulation import dead_weights, expectations
from qpeft.simulation.states import final_states
from qpeft.simulation.threads import one_thread

AMPLITUDES_PER_BLOCK = 2**17
"""States are made in blocks of this many amplitudes, which caches hold."""


@dataclass(frozen=True)
class Estimate:
    """A mean over random angles.

    Attributes:
        value: of the circuit.
        standard_error: of the value, from the spread of the samples.
        haar: what the same estimate gives on average for states drawn evenly from all states.
    """

    value: float
    standard_error: float
    haar: float


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


def freed(circuit: Circuit) -> Circuit:
    """Return the circuit with every weight an input after the last, so that each row has weights of its own."""
    operations = tuple(
        replace(operation, angle=Input(circuit.num_inputs + operation.angle.index))
        if isinstance(operation.angle, Weight)
        else operation
        for operation in circuit.operations
    )
    return replace(circuit, operations=operations)


def uniform(circuit: Circuit, samples: int, generator: torch.Generator) -> Float[Tensor, "samples angles"]:
    """Return inputs and weights in [-pi, pi], radians, float64: rows for `freed`.

    Args:
        circuit: whose angles.
        samples: rows.
        generator: of the angles.
    """
    shape = (samples, circuit.num_inputs + circuit.num_weights)
    return (2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1) * math.pi


def at_start(
    circuit: Circuit, config: QthaConfig, samples: int, generator: torch.Generator
) -> Float[Tensor, "samples angles"]:
    """Return inputs and weights of fresh adapters, radians, float64: rows for `freed`.

    Args:
        circuit: that of the config.
        config: says how weights begin and inputs are encoded.
        samples: rows, each of an adapter of its own.
        generator: of the angles.
    """
    bottleneck = CircuitBottleneck(
        circuit,
        samples,
        trained=False,
        input_scaling=config.input_scaling,
        offset=config.encoding_offset,
        init=config.angle_init,
    )
    bottleneck.initialize(generator)
    # Variance 1/3 is what an orthogonal `down` makes of layer inputs of variance 1.
    h = torch.randn(samples, circuit.num_inputs, generator=generator, dtype=torch.float64) / math.sqrt(3)
    return torch.cat([bottleneck.angles(h), bottleneck.weights.double()], dim=1)


@one_thread()
def gradient_size(circuit: Circuit, angles: Float[Tensor, "samples angles"]) -> GradientSize:
    """Return the size of gradients at these angles, rows of inputs followed by weights, radians.

    A circuit none of whose weights reaches the value has size 0.
    """
    angles = angles.detach().requires_grad_()
    values = expectations(freed(circuit), angles, angles.new_zeros(0))
    found = {}
    only_first = replace(circuit, observables=circuit.observables[:1])
    for name, value, seen in (("first", values[:, 0], only_first), ("mean", values.mean(1), circuit)):
        # Rows do not depend on each other, so the gradient of their sum has that of each row.
        (gradients,) = torch.autograd.grad(value.sum(), angles, retain_graph=True)
        dead = set(dead_weights(seen))
        reaching = [circuit.num_inputs + weight for weight in range(circuit.num_weights) if weight not in dead]
        found[name] = gradients[:, reaching].square().mean().item() if reaching else 0.0
    return GradientSize(**found)


@one_thread()
def reached_states(circuit: Circuit, samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return fidelities of pairs of states at uniform angles, (samples,), and Meyer-Wallach Q of all, (2 samples,).

    Args:
        circuit: that makes the states.
        samples: pairs of states.
        generator: of the angles.
    """
    fidelities, entanglements = [], []
    # Two states to a pair.
    size = max(1, AMPLITUDES_PER_BLOCK >> circuit.num_qubits + 1)
    for first in range(0, samples, size):
        angles = uniform(circuit, 2 * min(size, samples - first), generator)
        states = final_states(freed(circuit), angles, angles.new_zeros(0))
        fidelities.append(fidelity(*states.chunk(2, dim=-1)))
        entanglements.append(meyer_wallach(states))
    return torch.cat(fidelities), torch.cat(entanglements)


def fidelity(
    first: Float[Tensor, "2 amplitudes tokens"], second: Float[Tensor, "2 amplitudes tokens"]
) -> Float[Tensor, " tokens"]:
    """Return |<first|second>|^2 of pure states, given as real and imaginary parts."""
    real = (first * second).sum((0, 1))
    imaginary = (first[0] * second[1] - first[1] * second[0]).sum(0)
    return real.square() + imaginary.square()


def meyer_wallach(states: Float[Tensor, "2 amplitudes tokens"]) -> Float[Tensor, " tokens"]:
    """Return the entanglement Q = 2 (1 - mean over qubits of Tr rho_q^2) of pure states, in [0, 1].

    0 for product states, 1 where every qubit alone is maximally mixed, as in GHZ states.
    Source: Meyer and Wallach (quant-ph/0108104) in the form of Brennen (quant-ph/0305094).
    """
    num_qubits, purities = states.shape[1].bit_length() - 1, []
    for qubit in range(num_qubits):
        # rho_q is [[p_low, c], [c*, p_high]], so Tr rho_q^2 = p_low^2 + p_high^2 + 2 |c|^2.
        low, high = states.reshape(2, 2**qubit, 2, -1, states.shape[-1]).unbind(2)
        p_low, p_high = (half.square().sum((0, 1, 2)) for half in (low, high))
        coherence = fidelity(low.flatten(1, 2), high.flatten(1, 2))
        purities.append(p_low.square() + p_high.square() + 2 * coherence)
    # Rounding may leave a product state a little below 0.
    return (2 * (1 - torch.stack(purities).mean(0))).clamp(min=0)


def expressibility(fidelities: Float[Tensor, " samples"], num_qubits: int, *, bins: int) -> Estimate:
    """Return the Kullback-Leibler divergence of fidelities from those of even (Haar) states, in nats; 0 is most even.

    Even states of dimension N have fidelities of density (N - 1) (1 - F)^(N - 2), so u = (1 - F)^(N - 1) is uniform in
    [0, 1]. The divergence is that of a histogram of u: bins of equal Haar probability tell circuits apart at any number
    of qubits, where bins of equal width in F leave nearly all pairs in the first. It is at most log(bins). A finite
    sample adds a bias, about that of `haar`.
    Source: Sim, Johnson and Aspuru-Guzik (arXiv:1905.10876), whose 75 bins are of equal width.

    Args:
        fidelities: of pairs of states, in [0, 1].
        num_qubits: of the states.
        bins: of the histogram.
    """
    samples = len(fidelities)
    places = (1 - fidelities.clamp(0, 1)) ** (2**num_qubits - 1) * bins
    # A fidelity of exactly 0 would fall into a bin after the last.
    shares = torch.bincount(places.long().clamp(max=bins - 1), minlength=bins).double() / samples
    surprises = (shares[shares > 0] * bins).log()
    value = (shares[shares > 0] * surprises).sum()
    variance = (shares[shares > 0] * (surprises - value).square()).sum() / samples

    # If every sample falls into any bin with probability 1 / bins, the count of a bin is binomial. With each of its
    # counts k taken by its probability, bins * sum_k P(k) k/n log(k/n bins) is the mean of the estimate, exactly.
    even = 0.0
    if bins > 1:  # else log1p(-1) times 0 is NaN, where the divergence is 0 whatever the samples
        counts = torch.arange(1, samples + 1, dtype=torch.float64)
        total = torch.tensor(samples, dtype=torch.float64)
        choices = torch.lgamma(total + 1) - torch.lgamma(counts + 1) - torch.lgamma(total - counts + 1)
        probabilities = (choices - counts * math.log(bins) + (total - counts) * math.log1p(-1 / bins)).exp()
        parts = counts / total
        even = float(bins * (probabilities * parts * (parts * bins).log()).sum())
    return Estimate(value.item(), variance.sqrt().item(), even)


def entangling_capability(entanglements: Float[Tensor, " samples"], num_qubits: int) -> Estimate:
    """Return mean Meyer-Wallach Q; that of Haar states is (N - 2) / (N + 1). Source: as `expressibility`."""
    error = entanglements.std() / math.sqrt(len(entanglements))
    return Estimate(entanglements.mean().item(), error.item(), (2**num_qubits - 2) / (2**num_qubits + 1))

"""What stands in the bottleneck of a QTHA adapter: the circuit, or a control that takes its place."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qpeft.circuits import Circuit
from qpeft.simulation.layer import CircuitModule


class AbstractBottleneck(nn.Module, ABC):
    """From the bottleneck h to features, which the adapter then mixes.

    Args:
        num_features: how many, for every h.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    @abstractmethod
    def forward(self, h: Float[Tensor, "*batch rank"]) -> Float[Tensor, "*batch num_features"]:
        """The features, in the type of h."""

    @abstractmethod
    def initialize(self, generator: torch.Generator | None) -> None:
        """First values for the weights."""


class AbstractAngleBottleneck(AbstractBottleneck):
    """Circuits side by side, each on its slice of h: angles from h, one expectation value per observable.

        angles = scale(h) + offset;   output = values(angles, weights)

    Args:
        num_circuits: how many run side by side, each with weights of its own; rank = num_circuits * num_inputs.
        circuit: with as many features as it has observables.
        trained: whether the weights are parameters or, for a control, buffers frozen at their start.
        input_scaling: 'none' for angles h, 'tanh' for pi/2 tanh(h), which keeps each rotation below half a turn.
        offset: added to every angle, radians.
        init: of the weights, 'near_zero' (normal, standard deviation 0.1) or 'uniform' in [-pi, pi], radians.
    """

    weights: Tensor

    def __init__(
        self, circuit: Circuit, num_circuits: int, *, trained: bool, input_scaling: str, offset: float, init: str
    ) -> None:
        super().__init__(num_circuits * circuit.num_observables)
        self.circuit, self.num_circuits = circuit, num_circuits
        self.input_scaling, self.offset, self.init = input_scaling, offset, init
        weights = torch.empty(num_circuits, circuit.num_weights)
        if trained:
            self.weights = nn.Parameter(weights)
        else:
            self.register_buffer("weights", weights)

    def forward(self, h: Float[Tensor, "*batch rank"]) -> Float[Tensor, "*batch num_features"]:
        """Return expectation values in [-1, 1], in the order of the observables."""
        # Angles in half precision would be off by up to 0.004 radians, at the offset alone.
        exact = h.to(torch.promote_types(h.dtype, torch.float32))
        return self.values(self.angles(exact)).to(h.dtype)

    def angles(self, h: Float[Tensor, "*batch rank"]) -> Float[Tensor, "*batch rank"]:
        """The rotation angles that h is encoded as, radians."""
        scaled = math.pi / 2 * torch.tanh(h) if self.input_scaling == "tanh" else h
        return scaled + self.offset

    @abstractmethod
    def values(self, angles: Float[Tensor, "*batch rank"]) -> Float[Tensor, "*batch num_features"]:
        """Return expectation values at these angles, radians."""

    @torch.no_grad()
    def initialize(self, generator: torch.Generator | None) -> None:
        """Weights as `init` says."""
        if self.init == "near_zero":
            nn.init.normal_(self.weights, std=0.1, generator=generator)
        else:
            nn.init.uniform_(self.weights, -math.pi, math.pi, generator=generator)

    def extra_repr(self) -> str:
        """Size of the circuits, for `print(model)`."""
        return f"num_circuits={self.num_circuits}, num_qubits={self.circuit.num_qubits}"


class CircuitBottleneck(CircuitModule, AbstractAngleBottleneck):
    """The circuits themselves, on the simulator or wherever `set_evaluator` says; `has_evaluator` tells which."""

    def __init__(
        self, circuit: Circuit, num_circuits: int, *, trained: bool, input_scaling: str, offset: float, init: str
    ) -> None:
        super().__init__(circuit, num_circuits, trained=trained, input_scaling=input_scaling, offset=offset, init=init)
        self.place_circuits(circuit, num_circuits)


# Classical bottlenecks: what takes the circuit's place in the comparisons that ask whether it is needed.


class ConstantBottleneck(AbstractBottleneck):
    """The same trained value for every token, channel by channel: rank parameters, zero at first.

    A circuit whose output could be replaced by its mean does no more.
    """

    def __init__(self, rank: int) -> None:
        super().__init__(rank)
        self.weights = nn.Parameter(torch.empty(rank))

    def forward(self, h: Float[Tensor, "*batch rank"]) -> Float[Tensor, "*batch rank"]:
        """The values, whatever h is."""
        return self.weights.expand_as(h)

    def initialize(self, generator: torch.Generator | None) -> None:  # noqa: ARG002
        """Zero."""
        nn.init.zeros_(self.weights)


class MlpBottleneck(AbstractBottleneck):
    """Matrices (rank, rank) with a SiLU after each but the last, without biases; num_layers * rank^2 parameters.

        output = M_L silu(M_(L-1) ... silu(M_1 h))

    Source: the control of the method's authors, whose last matrix starts at zero; here `up` does.
    """

    def __init__(self, rank: int, num_layers: int) -> None:
        super().__init__(rank)
        self.first = nn.Parameter(torch.empty(rank, rank))
        self.inner = nn.ParameterList(nn.Parameter(torch.empty(rank, rank)) for _ in range(num_layers - 2))
        self.second = nn.Parameter(torch.empty(rank, rank))  # the last; named when there were but two

    def forward(self, h: Float[Tensor, "*batch rank"]) -> Float[Tensor, "*batch rank"]:
        """Last linear map of the SiLU of those before."""
        for matrix in (self.first, *self.inner.parameters()):
            h = nn.functional.silu(nn.functional.linear(h, matrix))
        return nn.functional.linear(h, self.second)

    @torch.no_grad()
    def initialize(self, generator: torch.Generator | None) -> None:
        """Orthogonal matrices; SiLU halves a signal near zero and less a larger one, which their sizes make good."""
        nn.init.orthogonal_(self.first, gain=2.0, generator=generator)
        for matrix in self.inner.parameters():
            nn.init.orthogonal_(matrix, gain=1.5, generator=generator)
        nn.init.orthogonal_(self.second, generator=generator)


class UnitBottleneck(AbstractBottleneck):
    """Per channel a sum of classical units, with as many parameters as it is told to have.

        output_q = sum over units u of a_uq f(b_uq h_q + c_uq) + d_uq

    Parameters are handed out unit by unit in the order c, b, a, d, four a unit; where the last unit gets fewer, its
    others stay at their first values: c = 0, b = number of the unit, a = 1 / number of units, d = 0. With f = sin these
    are the frequencies that a circuit with as many uploads of its data reaches. Of several d only the sum matters.

    Args:
        rank: number of channels.
        num_parameters: per channel.
        function: f, entry by entry.
    """

    def __init__(self, rank: int, num_parameters: int, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__(rank)
        self.function, self.num_units = function, -(-num_parameters // 4)
        self.weights = nn.Parameter(torch.empty(num_parameters, rank))

    def forward(self, h: Float[Tensor, "*batch rank"]) -> Float[Tensor, "*batch rank"]:
        """Sum of the units of every channel."""
        untrained = h.new_tensor(self._first_values()[len(self.weights) :])
        rows = torch.cat([self.weights, untrained[:, None].expand(-1, h.shape[-1])])
        c, b, a, d = rows.unflatten(0, (self.num_units, 4)).unbind(1)
        units: Tensor = a * self.function(b * h.unsqueeze(-2) + c) + d
        return units.sum(-2)

    @torch.no_grad()
    def initialize(self, generator: torch.Generator | None) -> None:  # noqa: ARG002
        """The first values above, for all channels the same: nothing is random."""
        first = self.weights.new_tensor(self._first_values()[: len(self.weights)])
        self.weights.copy_(first[:, None].expand_as(self.weights))

    def extra_repr(self) -> str:
        """Number of units and of their parameters, for `print(model)`."""
        return f"num_units={self.num_units}, num_parameters={len(self.weights)}"

    def _first_values(self) -> list[float]:
        return [value for unit in range(1, self.num_units + 1) for value in (0.0, float(unit), 1 / self.num_units, 0.0)]


class HilbertBottleneck(AbstractBottleneck):
    """Amplitude and phase of h as an analytic signal along the rank axis; no parameters, 2 rank features.

        s = h + i H h;   output = (|s_1| ... |s_r|, cos arg s_1 ... cos arg s_r)

    H is the discrete Hilbert transform: it turns every frequency between zero and Nyquist by a quarter, and removes
    these two. The adapter's mixing matrix is (rank, 2 rank), so it has rank^2 parameters more than beside a circuit.
    The cosine, bounded as an expectation value is, stands for the phase itself, which jumps by a turn. |s| is taken as
    sqrt(|s|^2 + 1e-4), which has a slope everywhere. Below rank 3, H is zero.

    Source: our reconstruction of H-LoRA (arXiv:2603.02281) from its abstract: a Hilbert transform within the adapter,
    features of amplitude and phase, bounded norms. Its formulas may differ.
    """

    def __init__(self, rank: int) -> None:
        super().__init__(2 * rank)

    def forward(self, h: Float[Tensor, "*batch rank"]) -> Float[Tensor, "*batch num_features"]:
        """All amplitudes, then all cosines."""
        quadrature = nn.functional.linear(h, hilbert_matrix(h.shape[-1], h.device).to(h.dtype))
        amplitude = (h.square() + quadrature.square() + 1e-4).sqrt()
        return torch.cat([amplitude, h / amplitude], dim=-1)

    def initialize(self, generator: torch.Generator | None) -> None:
        """Nothing to set."""


def hilbert_matrix(size: int, device: torch.device) -> Float[Tensor, "size size"]:
    """The discrete Hilbert transform of a real signal of `size` values, as a matrix: float32, antisymmetric."""
    places = torch.arange(size, device=device)
    frequencies = torch.arange(1, (size + 1) // 2, device=device)
    turns = (places[:, None] - places)[..., None] * frequencies
    matrix: Tensor = 2 / size * torch.sin(2 * math.pi / size * turns).sum(-1)
    return matrix


class ClassicalFormBottleneck(AbstractAngleBottleneck):
    """The values of `ring_cz` of depth 1 without a simulator: a short polynomial in sines and cosines.

        p_q = angle_q + v_q;   value_q = cos(w_q) cos(p_q) - sin(w_q) sin(p_q) product of cos(p_j) over neighbours j

    v and w are the weights before and after the ring, which has one neighbour at two qubits and none at one. Same
    weights, same values, same derivatives as the circuit: a saved adapter of one is an adapter of the other.
    """

    def values(self, angles: Float[Tensor, "*batch rank"]) -> Float[Tensor, "*batch rank"]:
        """Expectation values at these angles, radians."""
        before, after = self.weights.chunk(2, dim=-1)
        turned = angles.unflatten(-1, (self.num_circuits, -1)) + before
        cos = turned.cos()
        neighbours = torch.ones_like(cos)
        for step in {1: (), 2: (1,)}.get(self.circuit.num_qubits, (1, -1)):
            neighbours = neighbours * cos.roll(step, dims=-1)
        values: Tensor = after.cos() * cos - after.sin() * turned.sin() * neighbours
        return values.flatten(-2)

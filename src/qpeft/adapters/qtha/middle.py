"""What stands in the middle of the adapter: the circuit, or a control in its place; (..., rank) to (..., rank)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qpeft.adapters.qtha.traced import register, traced_expectations
from qpeft.circuits import Circuit
from qpeft.simulation import expectations

Evaluate: TypeAlias = Callable[[Circuit, Tensor, Tensor], Tensor]
"""Circuit, angles (..., num_circuits, num_inputs), weights (num_circuits, num_weights) to all expectation values."""


class CircuitMiddle(nn.Module):
    """Circuits side by side, each on its slice of h: angles from h, one Z expectation per qubit.

        angles = scale(h) + offset;   output = expectations(circuit, angles, weights)

    Args:
        circuit: num_qubits inputs and num_qubits observables.
        num_circuits: how many run side by side, each with weights of its own; rank = num_circuits * num_qubits.
        trained: whether the weights are parameters or, for a control, buffers frozen at their start.
        input_scaling: 'none' for angles h, 'tanh' for pi/2 tanh(h), which keeps each rotation below half a turn.
        offset: added to every angle, radians.

    Attributes:
        is_elsewhere: whether something other than the exact simulator gives the values; see `evaluate_elsewhere`.
    """

    weights: Tensor

    def __init__(
        self, circuit: Circuit, num_circuits: int, *, trained: bool, input_scaling: str, offset: float
    ) -> None:
        super().__init__()
        self.circuit, self.num_circuits = circuit, num_circuits
        self._key = register(circuit)
        self.input_scaling, self.offset = input_scaling, offset
        self.evaluate_elsewhere(None)
        weights = torch.empty(num_circuits, circuit.num_weights)
        if trained:
            self.weights = nn.Parameter(weights)
        else:
            self.register_buffer("weights", weights)

    def forward(self, h: Float[Tensor, "*batch rank"]) -> Float[Tensor, "*batch rank"]:
        """Expectation values in [-1, 1], in the order of the qubits."""
        # Angles in half precision would be off by up to 0.004 radians, at the offset alone.
        exact = h.to(torch.promote_types(h.dtype, torch.float32))
        return self._values(self.angles(exact)).to(h.dtype)

    def angles(self, h: Float[Tensor, "*batch rank"]) -> Float[Tensor, "*batch rank"]:
        """The rotation angles that h is encoded as, radians."""
        scaled = math.pi / 2 * torch.tanh(h) if self.input_scaling == "tanh" else h
        return scaled + self.offset

    @torch.no_grad()
    def initialize(self, init: str, generator: torch.Generator | None) -> None:
        """Weights near zero (normal, standard deviation 0.1) or uniform in [-pi, pi], radians."""
        if init == "near_zero":
            nn.init.normal_(self.weights, std=0.1, generator=generator)
        else:
            nn.init.uniform_(self.weights, -math.pi, math.pi, generator=generator)

    def evaluate_elsewhere(self, evaluate: Evaluate | None) -> None:
        """Let `evaluate` give the expectation values from now on; None for our simulator.

        Chosen at run time: neither saved nor copied with the module.
        """
        self._elsewhere = evaluate
        # torch.compile watches truth values, but not whether a function that it must not look into is None.
        self.is_elsewhere = evaluate is not None

    def extra_repr(self) -> str:
        """Size of the circuits, for `print(model)`."""
        return f"num_circuits={self.num_circuits}, num_qubits={self.circuit.num_qubits}"

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_elsewhere": None, "is_elsewhere": False}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        register(self.circuit)

    def _values(self, angles: Tensor) -> Tensor:
        if self.is_elsewhere:
            assert self._elsewhere is not None
            # All in one call, which on a device is one job.
            return self._elsewhere(self.circuit, angles.unflatten(-1, (self.num_circuits, -1)), self.weights).flatten(
                -2
            )
        parts = zip(angles.chunk(self.num_circuits, dim=-1), self.weights.unbind(), strict=True)
        return torch.cat([self._simulate(*part) for part in parts], dim=-1)

    def _simulate(self, angles: Tensor, weights: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return traced_expectations(self._key, angles, weights)
        return expectations(self.circuit, angles, weights)


class MlpMiddle(nn.Module):
    """The classical control of the method's authors: rank -> SiLU -> rank, without biases; 2 rank^2 parameters."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.empty(rank, rank))
        self.second = nn.Parameter(torch.empty(rank, rank))

    def forward(self, h: Float[Tensor, "*batch rank"]) -> Float[Tensor, "*batch rank"]:
        """Second linear map of the SiLU of the first."""
        return nn.functional.linear(nn.functional.silu(nn.functional.linear(h, self.first)), self.second)

    @torch.no_grad()
    def initialize(self, generator: torch.Generator | None) -> None:
        """Orthogonal matrices; SiLU halves a signal near zero, which the first makes good."""
        nn.init.orthogonal_(self.first, gain=2.0, generator=generator)
        nn.init.orthogonal_(self.second, generator=generator)


Middle = CircuitMiddle | MlpMiddle

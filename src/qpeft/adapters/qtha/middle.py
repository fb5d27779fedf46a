"""The middle of the adapter: what any middle is, and the circuit; `controls` has what takes the circuit's place."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
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


class AbstractMiddle(nn.Module, ABC):
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


class AbstractAngleMiddle(AbstractMiddle):
    """Circuits side by side, each on its slice of h: angles from h, one Z expectation per qubit.

        angles = scale(h) + offset;   output = values(angles, weights)

    Args:
        num_circuits: how many run side by side, each with weights of its own; rank = num_circuits * num_qubits.
        circuit: num_qubits inputs and num_qubits observables.
        trained: whether the weights are parameters or, for a control, buffers frozen at their start.
        input_scaling: 'none' for angles h, 'tanh' for pi/2 tanh(h), which keeps each rotation below half a turn.
        offset: added to every angle, radians.
        init: of the weights, 'near_zero' (normal, standard deviation 0.1) or 'uniform' in [-pi, pi], radians.
    """

    weights: Tensor

    def __init__(
        self, circuit: Circuit, num_circuits: int, *, trained: bool, input_scaling: str, offset: float, init: str
    ) -> None:
        super().__init__(num_circuits * circuit.num_qubits)
        self.circuit, self.num_circuits = circuit, num_circuits
        self.input_scaling, self.offset, self.init = input_scaling, offset, init
        weights = torch.empty(num_circuits, circuit.num_weights)
        if trained:
            self.weights = nn.Parameter(weights)
        else:
            self.register_buffer("weights", weights)

    def forward(self, h: Float[Tensor, "*batch rank"]) -> Float[Tensor, "*batch rank"]:
        """Expectation values in [-1, 1], in the order of the qubits."""
        # Angles in half precision would be off by up to 0.004 radians, at the offset alone.
        exact = h.to(torch.promote_types(h.dtype, torch.float32))
        return self.values(self.angles(exact)).to(h.dtype)

    def angles(self, h: Float[Tensor, "*batch rank"]) -> Float[Tensor, "*batch rank"]:
        """The rotation angles that h is encoded as, radians."""
        scaled = math.pi / 2 * torch.tanh(h) if self.input_scaling == "tanh" else h
        return scaled + self.offset

    @abstractmethod
    def values(self, angles: Float[Tensor, "*batch rank"]) -> Float[Tensor, "*batch rank"]:
        """Expectation values at these angles, radians."""

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


class CircuitMiddle(AbstractAngleMiddle):
    """The circuits themselves, on the simulator or wherever `evaluate_elsewhere` says; `is_elsewhere` tells which."""

    def __init__(
        self, circuit: Circuit, num_circuits: int, *, trained: bool, input_scaling: str, offset: float, init: str
    ) -> None:
        super().__init__(circuit, num_circuits, trained=trained, input_scaling=input_scaling, offset=offset, init=init)
        self._key = register(circuit)
        self.evaluate_elsewhere(None)

    def evaluate_elsewhere(self, evaluate: Evaluate | None) -> None:
        """Let `evaluate` give the expectation values from now on; None for our simulator.

        Chosen at run time: neither saved nor copied with the module.
        """
        self._elsewhere = evaluate
        # torch.compile watches truth values, but not whether a function that it must not look into is None.
        self.is_elsewhere = evaluate is not None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_elsewhere": None, "is_elsewhere": False}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        register(self.circuit)

    def values(self, angles: Float[Tensor, "*batch rank"]) -> Float[Tensor, "*batch rank"]:
        """Expectation values at these angles, radians."""
        if self.is_elsewhere:
            assert self._elsewhere is not None
            # All in one call, which on a device is one job.
            return self._elsewhere(self.circuit, angles.unflatten(-1, (self.num_circuits, -1)), self.weights).flatten(
                -2
            )
        if self.num_circuits == 1:
            return self._simulate(angles, self.weights.flatten())
        parts = zip(angles.chunk(self.num_circuits, dim=-1), self.weights.unbind(), strict=True)
        return torch.cat([self._simulate(*part) for part in parts], dim=-1)

    def _simulate(self, angles: Tensor, weights: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return traced_expectations(self._key, angles, weights)
        return expectations(self.circuit, angles, weights)

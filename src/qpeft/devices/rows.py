"""Rows of angles that are evaluated together, each with the weights of one of several circuits side by side."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qpeft.circuits import Circuit, bind
from qpeft.devices.calls import Operations
from qpeft.errors import SimulationError
from qpeft.simulation.checks import check_angles


@dataclass(frozen=True)
class Rows:
    """What is evaluated in one call.

    Attributes:
        inputs: (rows, num_inputs), radians.
        weights: (num_circuits, num_weights), radians.
        owners: (rows,), from 0 to num_circuits - 1: whose weights a row takes.
    """

    inputs: Tensor
    weights: Tensor
    owners: Tensor

    @classmethod
    def side_by_side(cls, inputs: Tensor, weights: Tensor) -> Rows:
        """Rows that take turns: row r has the weights of circuit r modulo num_circuits."""
        return cls(inputs, weights, torch.arange(len(inputs)) % len(weights))

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, chosen: Tensor) -> Rows:
        """The rows of a mask or of indices, (rows,) or (chosen,)."""
        return Rows(self.inputs[chosen], self.weights, self.owners[chosen.to(self.owners.device)])

    def bind(self, circuit: Circuit) -> list[Operations]:
        """Operations of the circuit with numbers for angles, one list per row."""
        weights, owners = self.weights.tolist(), self.owners.tolist()
        return [
            bind(circuit, row, weights[owner]).operations
            for row, owner in zip(self.inputs.tolist(), owners, strict=True)
        ]

    def by_owner(self) -> list[Tensor]:
        """The mask of each circuit's rows, (rows,)."""
        return [self.owners == owner for owner in range(len(self.weights))]

    def sum_by_owner(self, of_rows: Tensor) -> Tensor:
        """(rows, numbers) to (num_circuits, numbers)."""
        sums = of_rows.new_zeros(len(self.weights), *of_rows.shape[1:])
        return sums.index_add_(0, self.owners.to(of_rows.device), of_rows)


def check_rows(circuit: Circuit, inputs: Tensor, weights: Tensor) -> None:
    """Raises: SimulationError unless inputs and weights fit the circuit and each other and are finite.

    Weights are (num_weights,), or (num_circuits, num_weights) with inputs (..., num_circuits, num_inputs).
    """
    if weights.ndim == 2 and inputs.shape[-2:-1] != weights.shape[:1]:
        raise SimulationError(
            f"Weights for {len(weights)} circuits side by side go with inputs (..., {len(weights)}, "
            f"{circuit.num_inputs}); got shape {tuple(inputs.shape)}."
        )
    for one in weights.unbind() if weights.ndim == 2 else [weights]:
        check_angles(circuit, inputs, one)

"""Derivatives as sums of measured values: each term is one shifted circuit and what its values are multiplied by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from qpeft.circuits import Circuit, Input, Weight
from qpeft.devices.calls import Operations
from qpeft.devices.gradients.base import Wanted
from qpeft.devices.rows import Rows
from qpeft.devices.shift_rules import shift_rule


class AngleShift(NamedTuple):
    """One shifted evaluation: the operation, which angle it reads, how far it moves, and its weight in the sum."""

    position: int
    angle: Input | Weight
    amount: float
    coefficient: float


def shifts(circuit: Circuit, kind: type[Input] | type[Weight]) -> Iterator[AngleShift]:
    """Shifts of every occurrence of the inputs, or of the weights, by the rules of their gates."""
    for position, operation in enumerate(circuit.operations):
        if isinstance(operation.angle, kind):
            for shift in shift_rule(operation.gate_name):
                yield AngleShift(position, operation.angle, shift.amount, shift.coefficient)


@dataclass(frozen=True)
class Terms:
    """Derivative of row rows[t] by angle columns[t]: a sum over t of factors[t] times the values of circuit places[t].

    Attributes:
        circuits: to be measured, all different, as operations with numbers for angles.
        places: (terms,), index into `circuits`.
        rows: (terms,).
        columns: (terms,), angles of a row, first num_inputs inputs and then weights.
        factors: (terms, num_observables): of the shift rule times the gradient from above.
        of: the rows that they are about.
    """

    circuits: list[Operations]
    places: Tensor
    rows: Tensor
    columns: Tensor
    factors: Tensor
    of: Rows

    @classmethod
    def by_shifts(cls, circuit: Circuit, rows: Rows, grad: Tensor, wanted: Wanted) -> Terms:
        """Return the terms of all rows.

        Args:
            circuit: whose angles are shifted, by the rules of their gates.
            rows: its angles.
            grad: from above, (rows, num_observables).
            wanted: of what derivatives are asked.
        """
        moves = [*shifts(circuit, Input)] * wanted.inputs + [*shifts(circuit, Weight)] * wanted.weights
        places: dict[Operations, int] = {}
        terms = []
        for row, operations in enumerate(rows.bind(circuit)):
            for shift in moves:
                place = places.setdefault(_shifted(operations, shift), len(places))
                column = shift.angle.index + circuit.num_inputs * isinstance(shift.angle, Weight)
                terms.append((place, row, column, shift.coefficient))
        table = torch.tensor(terms, dtype=torch.float64).reshape(-1, 4)
        numbers = table[:, :3].long()
        factors = table[:, 3:] * grad[numbers[:, 1]]
        return cls(list(places), numbers[:, 0], numbers[:, 1], numbers[:, 2], factors, rows)

    def slopes(self, values: Tensor) -> Tensor:
        """Derivatives, (rows, num_inputs + num_weights), from values of the circuits, (circuits, num_observables)."""
        products = (self.factors * values[self.places]).sum(1)
        slopes = products.new_zeros(len(self.of), self.of.inputs.shape[1] + self.of.weights.shape[1])
        return slopes.index_put_((self.rows, self.columns), products, accumulate=True)

    def variances(self, covariances: Tensor) -> tuple[Tensor, Tensor]:
        """Return the variances of the derivatives by inputs, and of the sums over rows of those by weights.

        Circuits are independent; derivatives that share one add its values up before they are squared.

        Args:
            covariances: of the values of each circuit, (circuits, num_observables, num_observables).
        """
        inputs, weights = self.of.inputs, self.of.weights
        num_inputs, num_weights = inputs.shape[1], weights.shape[1]
        of_inputs = self.rows * num_inputs + self.columns
        of_weights = inputs.numel() + self.of.owners[self.rows] * num_weights + self.columns - num_inputs
        targets = of_inputs.where(self.columns < num_inputs, of_weights)

        pairs, pair_of = torch.unique(targets * len(self.circuits) + self.places, return_inverse=True)
        factors = self.factors.new_zeros(len(pairs), self.factors.shape[1]).index_add_(0, pair_of, self.factors)
        # Not with no circuits at all: nothing can be divided by zero.
        targets, places = (pairs // len(self.circuits), pairs % len(self.circuits)) if len(pairs) else (pairs, pairs)
        quadratic = (factors[:, None] @ covariances[places] @ factors[:, :, None]).flatten()
        # A device that corrects readout returns values slightly beyond 1, whose variance would be negative.
        variances = quadratic.new_zeros(inputs.numel() + weights.numel()).index_add_(0, targets, quadratic.clamp(min=0))
        by_inputs, by_weights = variances.split([inputs.numel(), weights.numel()])
        return by_inputs.reshape(inputs.shape), by_weights.reshape(weights.shape)


def _shifted(operations: Operations, shift: AngleShift) -> Operations:
    before = operations[shift.position]
    assert isinstance(before.angle, float), "bound circuits have numbers for angles"
    after = replace(before, angle=before.angle + shift.amount)
    return (*operations[: shift.position], after, *operations[shift.position + 1 :])

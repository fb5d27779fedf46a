"""Derivatives as sums of measured values: each term is one shifted circuit and what its values are multiplied by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from qpeft.circuits import Circuit, Input, Weight
from qpeft.devices.calls import Operations
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
    def by_shifts(cls, circuit: Circuit, rows: Rows, grad: Tensor, by_inputs: Tensor, by_weights: Tensor) -> Terms:
        """Terms of the rows that are set in the masks, (rows,), for derivatives by inputs and by weights."""
        of_inputs, of_weights = list(shifts(circuit, Input)), list(shifts(circuit, Weight))
        places: dict[Operations, int] = {}
        terms = []
        wanted = zip(rows.bind(circuit), by_inputs.tolist(), by_weights.tolist(), strict=True)
        for row, (operations, inputs, weights) in enumerate(wanted):
            for shift in of_inputs * inputs + of_weights * weights:
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

    def variances(self, covariances: Tensor, weight_scales: Tensor) -> Variances:
        """Variances of the derivatives by inputs and of sums over rows by weights, also where sums share a circuit.

        Args:
            covariances: of the values of each circuit, (circuits, num_observables, num_observables).
            weight_scales: of the rows' derivatives by weights in the sums, (rows,).
        """
        num_rows, num_inputs = self.of.inputs.shape
        num_circuits, num_weights = self.of.weights.shape
        is_input = self.columns < num_inputs
        of_inputs = self.rows * num_inputs + self.columns
        of_weights = num_rows * num_inputs + self.of.owners[self.rows] * num_weights + self.columns - num_inputs
        targets = of_inputs.where(is_input, of_weights)
        scales = weight_scales[self.rows].where(~is_input, 1.0)

        pairs, pair_of = torch.unique(targets * len(self.circuits) + self.places, return_inverse=True)
        factors = self.factors.new_zeros(len(pairs), self.factors.shape[1])
        factors.index_add_(0, pair_of, self.factors * scales[:, None])
        # Not with no circuits at all: nothing can be divided by zero.
        targets, places = (pairs // len(self.circuits), pairs % len(self.circuits)) if len(pairs) else (pairs, pairs)
        quadratic = (factors[:, None] @ covariances[places] @ factors[:, :, None]).flatten()
        # A device that corrects readout returns values slightly beyond 1, whose variance would be negative.
        counts = num_rows * num_inputs + num_circuits * num_weights, len(self.circuits)
        return Variances(targets, places, quadratic.clamp(min=0), *counts)

    def split(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers of all targets in the shapes of the inputs and of the weights."""
        inputs, weights = self.of.inputs, self.of.weights
        of_inputs, of_weights = numbers.split([inputs.numel(), weights.numel()])
        return of_inputs.reshape(inputs.shape), of_weights.reshape(weights.shape)


class Variances(NamedTuple):
    """What circuits add to the variances of derivatives, (pairs,): derivative, circuit, variance; and their numbers."""

    targets: Tensor
    places: Tensor
    variances: Tensor
    num_targets: int
    num_circuits: int

    def by_target(self) -> Tensor:
        """Variances of the derivatives, (num_targets,)."""
        return self.variances.new_zeros(self.num_targets).index_add_(0, self.targets, self.variances)

    def by_circuit(self) -> Tensor:
        """What each circuit adds to all of them together, (num_circuits,)."""
        return self.variances.new_zeros(self.num_circuits).index_add_(0, self.places, self.variances)


def _shifted(operations: Operations, shift: AngleShift) -> Operations:
    before = operations[shift.position]
    assert isinstance(before.angle, float), "bound circuits have numbers for angles"
    after = replace(before, angle=before.angle + shift.amount)
    return (*operations[: shift.position], after, *operations[shift.position + 1 :])

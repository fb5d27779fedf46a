"""Gradients through a device, each a class that says in advance how many circuits it takes.

parameter-shift   exact in expectation; 2 or 4 circuits per angle, input row and measurement basis
spsa              two circuits per random direction, unbiased up to the square of the step, and noisy
simulated         no circuits: values from the device, derivatives from our simulator at the same angles
"""

from __future__ import annotations

import difflib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from qpeft.circuits import GATES, Circuit, Input, Weight, bind
from qpeft.circuits.gates import Gate
from qpeft.devices.calls import DeviceCall, Operations, Rows, num_bases
from qpeft.errors import GradientError
from qpeft.simulation import expectations
from qpeft.simulation.checks import whole_number
from qpeft.simulation.noise import SampleKey
from qpeft.simulation.noise.counter import Stream

# What every gradient through a device offers.


class Wanted(NamedTuple):
    """Of what derivatives are asked."""

    inputs: bool = True
    weights: bool = True


class Products(NamedTuple):
    """Gradients of sum(values * grad) and their standard errors, of any type and place; zero where not wanted.

    Attributes:
        inputs: (rows, num_inputs).
        weights: (num_circuits, num_weights), summed over the rows of each circuit.
        input_errors, weight_errors: standard errors in the same shapes; NaN where nothing is known of them.
    """

    inputs: Tensor
    weights: Tensor
    input_errors: Tensor
    weight_errors: Tensor


class AbstractGradient(ABC):
    """A way to derivatives of values that came from a device."""

    @abstractmethod
    def circuits(self, circuit: Circuit, wanted: Wanted, num_rows: int) -> int:
        """Circuits that a backward pass sends for so many rows of inputs, if none of them are equal."""

    @abstractmethod
    def products(self, call: DeviceCall, rows: Rows, grad: Tensor, wanted: Wanted) -> Products:
        """Gradients of sum(values * grad) by inputs and weights.

        Args:
            call: circuit, device and key, of the backward pass.
            rows: angles, of any type and place.
            grad: from above, (rows, num_observables), in no row all zero.
            wanted: of what derivatives are asked.
        """


# Parameter-shift rules: exact derivatives of expectation values as weighted values at shifted angles.
#
# With U(angle) = exp(-i angle G / 2), an expectation value is a trigonometric polynomial of the angle, whose
# frequencies are half the differences of the eigenvalues of G. For R frequencies 2 R shifted values give the
# derivative.
# Source: Wierichs et al., General parameter-shift rules for quantum gradients, arXiv:2107.12390, equation (19).


@dataclass(frozen=True)
class Shift:
    """One term of a rule: `coefficient` times the value with the angle moved by `amount`, radians."""

    amount: float
    coefficient: float


@cache
def shift_rule(gate_name: str) -> tuple[Shift, ...]:
    """Terms whose sum is the derivative by the angle of a gate: two for rotations, four for controlled rotations."""
    positive = frequencies(GATES[gate_name])
    if not positive:
        return ()
    base, count = positive[0], len(positive)
    # Spread evenly over half a period of the slowest frequency, where no two rows of the system are alike.
    amounts = np.array([(2 * term - 1) * math.pi / (2 * count * base) for term in range(1, count + 1)])
    # f(x + s) - f(x - s) has 2 sin(w s) times what f'(x) has w times, for every frequency w.
    system = 2 * np.sin(np.outer(positive, amounts))
    coefficients = np.linalg.solve(system, np.array(positive))
    pairs = zip(amounts.tolist(), coefficients.tolist(), strict=True)
    return tuple(Shift(sign * amount, sign * coefficient) for amount, coefficient in pairs for sign in (1, -1))


def frequencies(gate: Gate) -> tuple[float, ...]:
    """Positive frequencies of expectation values as functions of the gate's angle, ascending."""
    levels = [level for level, _ in gate.spectrum]
    return tuple(sorted({round(abs(one - other) / 2, 9) for one in levels for other in levels} - {0.0}))


# Derivatives as sums of measured values: each term is one shifted circuit and what its values are multiplied by.


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


# Parameter shift: derivatives as weighted values at shifted angles, exact in expectation.


@dataclass(frozen=True)
class ParameterShift(AbstractGradient):
    """Every occurrence of a wanted angle shifted alone, by the rule of its gate; all observables share the results.

    Unbiased, whatever the shots. Standard errors contain the noise of the shots, with correlations between observables
    of a circuit; the noise of `grad` from above they do not contain.
    """

    def circuits(self, circuit: Circuit, wanted: Wanted, num_rows: int) -> int:
        """Two for a rotation, four for a controlled one, times the measurement bases."""
        by_inputs, by_weights = len(list(shifts(circuit, Input))), len(list(shifts(circuit, Weight)))
        return num_bases(circuit) * num_rows * (wanted.inputs * by_inputs + wanted.weights * by_weights)

    def products(self, call: DeviceCall, rows: Rows, grad: Tensor, wanted: Wanted) -> Products:
        """As `AbstractGradient.products`."""
        terms = Terms.by_shifts(call.circuit, rows, grad.detach().cpu().double(), wanted)
        values, covariances = (torch.from_numpy(one) for one in call.moments(terms.circuits))
        num_inputs = call.circuit.num_inputs
        slopes, (input_variances, weight_variances) = terms.slopes(values), terms.variances(covariances)
        return Products(
            slopes[:, :num_inputs],
            rows.sum_by_owner(slopes[:, num_inputs:]),
            input_variances.sqrt(),
            weight_variances.sqrt(),
        )


# Values from the device, derivatives from our simulator.


@dataclass(frozen=True)
class Simulated(AbstractGradient):
    """The gradient of the exact values, of which a device without noise returns unbiased estimates.

    Its standard errors are zero: it does not depend on the device. How far the device is from the simulator they do not
    say.
    """

    def circuits(self, circuit: Circuit, wanted: Wanted, num_rows: int) -> int:  # noqa: ARG002
        """None."""
        return 0

    def products(
        self,
        call: DeviceCall,
        rows: Rows,
        grad: Tensor,
        wanted: Wanted,  # noqa: ARG002
    ) -> Products:
        """As `AbstractGradient.products`, both always."""
        input_grad, weight_grad = torch.zeros_like(rows.inputs), torch.zeros_like(rows.weights)
        for owner, (weights, mask) in enumerate(zip(rows.weights, rows.by_owner(), strict=True)):
            own = mask.to(grad.device)
            with torch.enable_grad():
                leaves = rows.inputs[own].detach().requires_grad_(), weights.detach().requires_grad_()
                products = torch.autograd.grad(expectations(call.circuit, *leaves), leaves, grad[own])
            input_grad[own], weight_grad[owner] = products
        return Products(input_grad, weight_grad, torch.zeros_like(input_grad), torch.zeros_like(weight_grad))


# Simultaneous perturbation: two circuits per direction, however many angles there are.


@dataclass(frozen=True)
class Spsa(AbstractGradient):
    """Simultaneous perturbation: all wanted angles of a row moved at once, along random signs.

    Expected bias is of the order of `step` squared, spread from shots of the order of 1 / `step`. The directions are a
    function of (seed, the call's step, module and number), and each row has its own. Standard errors are those of the
    mean over a row's directions, so with one direction they are NaN; the bias is not in them.

    Args:
        num_directions: averaged over, per row of inputs.
        step: by which each angle moves to either side, radians.
        seed: of the directions.

    Raises: GradientError if there is no direction or the step is not positive.
    Source: Spall, Multivariate stochastic approximation using a simultaneous perturbation gradient approximation, 1992.
    """

    num_directions: int = 1
    step: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        directions = whole_number(self.num_directions)
        is_positive = whole_number(self.step) or (isinstance(self.step, float) and math.isfinite(self.step))
        if not directions or directions < 1 or not (is_positive and self.step > 0):
            raise GradientError(
                "SPSA needs a whole number of directions, at least one, and a positive step; got "
                f"{self.num_directions!r} and {self.step!r}."
            )
        SampleKey(self.seed)

    def circuits(self, circuit: Circuit, wanted: Wanted, num_rows: int) -> int:
        """Two per row and direction, times the measurement bases; none if there is no angle to move."""
        num_angles = wanted.inputs * circuit.num_inputs + wanted.weights * circuit.num_weights
        return 2 * num_rows * self.num_directions * num_bases(circuit) if num_angles else 0

    def products(self, call: DeviceCall, rows: Rows, grad: Tensor, wanted: Wanted) -> Products:
        """As `AbstractGradient.products`."""
        inputs, weights, grad = (tensor.detach().cpu().double() for tensor in (rows.inputs, rows.weights, grad))
        signs = self._signs(call, len(rows))
        moves = torch.tensor([wanted.inputs] * inputs.shape[1] + [wanted.weights] * weights.shape[1], dtype=torch.bool)
        signs *= moves
        angles = torch.cat([inputs, weights[rows.owners]], dim=1)
        if not moves.any():
            return Products(*(torch.zeros_like(one) for one in (inputs, weights, inputs, weights)))
        slopes, noise = self._slopes(call, angles, signs, grad)
        products = slopes[:, :, None] * signs
        means, variances = products.mean(1), self._variances(products, signs, noise)
        split = inputs.shape[1]
        return Products(
            means[:, :split],
            rows.sum_by_owner(means[:, split:]),
            variances[:, :split].sqrt(),
            rows.sum_by_owner(variances[:, split:]).sqrt(),
        )

    def _slopes(self, call: DeviceCall, angles: Tensor, signs: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Derivatives along the directions, and their variances from the shots, (rows, num_directions) each."""
        angles = angles[:, None]
        moved = torch.stack([angles + self.step * signs, angles - self.step * signs], dim=2)
        split = call.circuit.num_inputs
        bound = [bind(call.circuit, row[:split], row[split:]).operations for row in moved.flatten(0, 2).tolist()]
        values, covariances = (torch.from_numpy(one).unflatten(0, moved.shape[:3]) for one in call.moments(bound))
        ends = (values * grad[:, None, None]).sum(3)
        noise = torch.einsum("ro,rdsop,rp->rd", grad, covariances, grad).clamp(min=0)
        return (ends[:, :, 0] - ends[:, :, 1]) / (2 * self.step), noise / (2 * self.step) ** 2

    def _variances(self, products: Tensor, signs: Tensor, noise: Tensor) -> Tensor:
        """Of the means over directions: (rows, num_directions, angles) to (rows, angles)."""
        count = self.num_directions
        moved = signs[:, 0] != 0
        if count == 1:
            # One direction says nothing of the spread, except that what was not moved has none.
            return torch.full_like(products[:, 0], math.nan).where(moved, 0.0)
        # Directions that are equal or opposite have the same circuits, which are sent once: their noise is the same,
        # and less of it shows in the spread than is in the mean.
        equal = (signs @ signs.mT).abs() == moved.sum(1)[:, None, None]
        shared = ((equal.sum(2) - 1) * noise).sum(1) / (count * (count - 1))
        return products.var(1) / count + shared[:, None] * moved

    def _signs(self, call: DeviceCall, num_rows: int) -> Tensor:
        key = SampleKey(self.seed, call.key.step, f"spsa {call.key.module}", call.key.call)
        num_angles = call.circuit.num_inputs + call.circuit.num_weights
        return Stream(key).uniforms(num_rows, self.num_directions, num_angles).sub(0.5).sign()


# Gradients by their names.


GRADIENTS: dict[str, AbstractGradient] = {
    "parameter-shift": ParameterShift(),
    "spsa": Spsa(),
    "simulated": Simulated(),
}
GradientChoice: TypeAlias = str | AbstractGradient | None
"""A name in `GRADIENTS`, one with other options such as `Spsa(num_directions=4)`, or None for no gradient."""


def find_gradient(choice: GradientChoice) -> AbstractGradient | None:
    """The gradient that is meant. Raises: GradientError for an unknown name, naming the nearest."""
    if choice is None or isinstance(choice, AbstractGradient):
        return choice
    if choice not in GRADIENTS:
        near = difflib.get_close_matches(str(choice), GRADIENTS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"Known: {', '.join(GRADIENTS)}, or None."
        raise GradientError(f"There is no gradient {choice!r} through a device; {hint}")
    return GRADIENTS[choice]

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
from qpeft.devices.calls import DeviceCall, Operations, Rows, num_bases
from qpeft.errors import GradientError
from qpeft.simulation import expectations
from qpeft.simulation.checks import whole_number
from qpeft.simulation.noise import SampleKey
from qpeft.simulation.noise.counter import Stream


class WantedGradients(NamedTuple):
    """Which derivatives are asked for."""

    inputs: bool = True
    weights: bool = True


class DeviceGradients(NamedTuple):
    """Gradients of sum(values * grad), and how far they are off; zero where not wanted.

    Attributes:
        inputs: in the shape of the inputs; within this file (rows, num_inputs).
        weights: in the shape of the weights; within this file (num_circuits, num_weights), summed over rows.
        input_errors, weight_errors: standard errors of both, in the same shapes: from the shots of this pass, and for
            'spsa' from the spread over its directions, so NaN with a single one. The noise of `grad` itself is not in
            them, nor is a bias of the method.
    """

    inputs: Tensor
    weights: Tensor
    input_errors: Tensor
    weight_errors: Tensor


class AbstractGradient(ABC):
    """A way to derivatives of values that came from a device."""

    @abstractmethod
    def circuits(self, circuit: Circuit, wanted: WantedGradients, num_rows: int) -> int:
        """Return how many circuits a backward pass sends, if none of them are equal.

        Args:
            circuit: with its observables.
            wanted: which derivatives are asked for.
            num_rows: rows of inputs.
        """

    @abstractmethod
    def products(self, call: DeviceCall, rows: Rows, grad: Tensor, wanted: WantedGradients) -> DeviceGradients:
        """Return gradients of sum(values * grad) by inputs and weights, of any type and place.

        Args:
            call: circuit, device and key, of the backward pass.
            rows: angles, of any type and place.
            grad: from above, (rows, num_observables), in no row all zero.
            wanted: which derivatives are asked for.
        """


@dataclass(frozen=True)
class Shift:
    """One term of a rule: `coefficient` times the value with the angle moved by `amount`, radians."""

    amount: float
    coefficient: float


@cache
def shift_rule(gate_name: str) -> tuple[Shift, ...]:
    """Return the terms whose sum is the derivative by a gate's angle: two for rotations, four for controlled ones.

    Source: Wierichs et al., General parameter-shift rules for quantum gradients, arXiv:2107.12390, equation (19).
    """
    # With U(angle) = exp(-i angle G / 2), an expectation value is a trigonometric polynomial of the angle. Its
    # frequencies are half the differences of the eigenvalues of G. R frequencies need 2 R shifted values.
    levels = [level for level, _ in GATES[gate_name].spectrum]
    frequencies = sorted({round(abs(one - other) / 2, 9) for one in levels for other in levels} - {0.0})
    if not frequencies:
        return ()
    base, count = frequencies[0], len(frequencies)
    # Spread evenly over half a period of the slowest frequency, where no two rows of the system are alike.
    amounts = np.array([(2 * term - 1) * math.pi / (2 * count * base) for term in range(1, count + 1)])
    # f(x + s) - f(x - s) has 2 sin(w s) times what f'(x) has w times, for every frequency w.
    system = 2 * np.sin(np.outer(frequencies, amounts))
    coefficients = np.linalg.solve(system, np.array(frequencies))
    pairs = zip(amounts.tolist(), coefficients.tolist(), strict=True)
    return tuple(Shift(sign * amount, sign * coefficient) for amount, coefficient in pairs for sign in (1, -1))


def _moves(circuit: Circuit, kind: type[Input] | type[Weight]) -> Iterator[tuple[int, int, Shift]]:
    """Return position, column of the angle (inputs first, then weights) and shift, for every occurrence of a kind."""
    for position, operation in enumerate(circuit.operations):
        if isinstance(angle := operation.angle, kind):
            column = angle.index + circuit.num_inputs * isinstance(angle, Weight)
            yield from ((position, column, shift) for shift in shift_rule(operation.gate_name))


@dataclass(frozen=True)
class ParameterShift(AbstractGradient):
    """Every occurrence of a wanted angle shifted alone, by the rule of its gate; all observables share the results.

    Unbiased, whatever the shots. Standard errors contain the noise of the shots, with correlations between observables
    of a circuit; the noise of `grad` from above they do not contain.
    """

    def circuits(self, circuit: Circuit, wanted: WantedGradients, num_rows: int) -> int:
        """Return two for a rotation, four for a controlled one, times the measurement bases.

        Args:
            circuit, wanted, num_rows: as for `AbstractGradient.circuits`.
        """
        by_inputs, by_weights = len(list(_moves(circuit, Input))), len(list(_moves(circuit, Weight)))
        return num_bases(circuit) * num_rows * (wanted.inputs * by_inputs + wanted.weights * by_weights)

    def products(self, call: DeviceCall, rows: Rows, grad: Tensor, wanted: WantedGradients) -> DeviceGradients:
        """Return the sums over shifted circuits.

        Args:
            call, rows, grad, wanted: as for `AbstractGradient.products`.
        """
        circuit = call.circuit
        moves = [*_moves(circuit, Input)] * wanted.inputs + [*_moves(circuit, Weight)] * wanted.weights
        # Term t says: the derivative of row rows[t] by angle columns[t] gets factors[t] times the values of circuit
        # places[t]. Rows with equal angles share circuits, so a place may serve several terms.
        places_of: dict[Operations, int] = {}
        terms = []
        for row, operations in enumerate(rows.bind(circuit)):
            for position, column, shift in moves:
                before = operations[position]
                assert isinstance(before.angle, float), "bound circuits have numbers for angles"
                after = replace(before, angle=before.angle + shift.amount)
                shifted = (*operations[:position], after, *operations[position + 1 :])
                terms.append((places_of.setdefault(shifted, len(places_of)), row, column, shift.coefficient))
        table = torch.tensor(terms, dtype=torch.float64).reshape(-1, 4)
        places, of_rows, columns = table[:, :3].long().T
        # (terms, num_observables): of the shift rule times the gradient from above.
        factors = table[:, 3:] * grad.detach().cpu().double()[of_rows]
        values, covariances = (torch.from_numpy(one) for one in call.moments(list(places_of)))

        num_inputs, num_weights = rows.inputs.shape[1], rows.weights.shape[1]
        slopes = values.new_zeros(len(rows), num_inputs + num_weights)
        slopes.index_put_((of_rows, columns), (factors * values[places]).sum(1), accumulate=True)

        # Variances: circuits are independent, so their parts add up. Terms of one circuit in one derivative are added
        # before they are squared: factors^T covariance factors. A weight's derivative is the sum over its rows.
        of_inputs = of_rows * num_inputs + columns
        of_weights = rows.inputs.numel() + rows.owners[of_rows] * num_weights + columns - num_inputs
        targets = of_inputs.where(columns < num_inputs, of_weights)
        # At least 1: without any circuit there are no terms, and nothing may be divided by zero.
        count = max(1, len(places_of))
        pairs, pair_of = torch.unique(targets * count + places, return_inverse=True)
        factors = factors.new_zeros(len(pairs), factors.shape[1]).index_add_(0, pair_of, factors)
        quadratic = (factors[:, None] @ covariances[pairs % count] @ factors[:, :, None]).flatten()
        sizes = [rows.inputs.numel(), rows.weights.numel()]
        # A device that corrects readout returns values slightly beyond 1, whose variance would be negative.
        variances = quadratic.new_zeros(sum(sizes)).index_add_(0, pairs // count, quadratic.clamp(min=0))
        by_inputs, by_weights = variances.sqrt().split(sizes)
        return DeviceGradients(
            slopes[:, :num_inputs],
            rows.sum_by_owner(slopes[:, num_inputs:]),
            by_inputs.reshape(rows.inputs.shape),
            by_weights.reshape(rows.weights.shape),
        )


@dataclass(frozen=True)
class Simulated(AbstractGradient):
    """The gradient of the exact values, of which a device without noise returns unbiased estimates.

    Its standard errors are zero: it does not depend on the device. How far the device is from the simulator they do not
    say.
    """

    def circuits(self, circuit: Circuit, wanted: WantedGradients, num_rows: int) -> int:  # noqa: ARG002
        """Return 0.

        Args:
            circuit, wanted, num_rows: as for `AbstractGradient.circuits`.
        """
        return 0

    def products(
        self,
        call: DeviceCall,
        rows: Rows,
        grad: Tensor,
        wanted: WantedGradients,  # noqa: ARG002
    ) -> DeviceGradients:
        """Return both gradients, whatever is wanted.

        Args:
            call, rows, grad, wanted: as for `AbstractGradient.products`.
        """
        # One circuit of those side by side at a time, as the simulator shares weights among rows.
        input_grad, weight_grad = torch.zeros_like(rows.inputs), torch.zeros_like(rows.weights)
        for owner, weights in enumerate(rows.weights):
            own = (rows.owners == owner).to(grad.device)
            with torch.enable_grad():
                leaves = rows.inputs[own].detach().requires_grad_(), weights.detach().requires_grad_()
                products = torch.autograd.grad(expectations(call.circuit, *leaves), leaves, grad[own])
            input_grad[own], weight_grad[owner] = products
        return DeviceGradients(input_grad, weight_grad, torch.zeros_like(input_grad), torch.zeros_like(weight_grad))


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
        SampleKey(self.seed)  # raises for what cannot be a seed

    def circuits(self, circuit: Circuit, wanted: WantedGradients, num_rows: int) -> int:
        """Return two per row and direction, times the measurement bases; 0 if there is no angle to move.

        Args:
            circuit, wanted, num_rows: as for `AbstractGradient.circuits`.
        """
        num_angles = wanted.inputs * circuit.num_inputs + wanted.weights * circuit.num_weights
        return 2 * num_rows * self.num_directions * num_bases(circuit) if num_angles else 0

    def products(self, call: DeviceCall, rows: Rows, grad: Tensor, wanted: WantedGradients) -> DeviceGradients:
        """Return the means over random directions.

        Args:
            call, rows, grad, wanted: as for `AbstractGradient.products`.
        """
        inputs, weights, grad = (tensor.detach().cpu().double() for tensor in (rows.inputs, rows.weights, grad))
        angles = torch.cat([inputs, weights[rows.owners]], dim=1)
        split = inputs.shape[1]
        is_moved = torch.tensor([wanted.inputs] * split + [wanted.weights] * weights.shape[1], dtype=torch.bool)
        if not is_moved.any():
            return DeviceGradients(*(torch.zeros_like(one) for one in (inputs, weights, inputs, weights)))
        # Drawn for all angles and then blanked, so that what is wanted does not change the other directions.
        key = SampleKey(self.seed, call.key.step, f"spsa {call.key.module}", call.key.call)
        signs = Stream(key).uniforms(len(rows), self.num_directions, len(is_moved)).sub(0.5).sign() * is_moved

        # Slope along a direction d: (f(x + step d) - f(x - step d)) / (2 step). Ends: (rows, directions, 2, angles).
        ends = torch.stack([angles[:, None] + self.step * signs, angles[:, None] - self.step * signs], dim=2)
        bound = [bind(call.circuit, row[:split], row[split:]).operations for row in ends.flatten(0, 2).tolist()]
        values, covariances = (torch.from_numpy(one).unflatten(0, ends.shape[:3]) for one in call.moments(bound))
        sums = (values * grad[:, None, None]).sum(3)
        slopes = (sums[:, :, 0] - sums[:, :, 1]) / (2 * self.step)
        noise = torch.einsum("ro,rdsop,rp->rd", grad, covariances, grad).clamp(min=0) / (2 * self.step) ** 2

        # A sign is its own inverse, so the slope times the sign estimates the derivative by that angle.
        products = slopes[:, :, None] * signs
        means, count, moved = products.mean(1), self.num_directions, signs[:, 0] != 0
        if count == 1:
            # One direction says nothing of the spread, except that what was not moved has none.
            variances = torch.full_like(means, math.nan).where(moved, 0.0)
        else:
            # Directions that are equal or opposite have the same circuits, which are sent once: their noise is the
            # same, and less of it shows in the spread than is in the mean.
            equal = (signs @ signs.mT).abs() == moved.sum(1)[:, None, None]
            shared = ((equal.sum(2) - 1) * noise).sum(1) / (count * (count - 1))
            variances = products.var(1) / count + shared[:, None] * moved
        return DeviceGradients(
            means[:, :split],
            rows.sum_by_owner(means[:, split:]),
            variances[:, :split].sqrt(),
            rows.sum_by_owner(variances[:, split:]).sqrt(),
        )


GRADIENTS: dict[str, AbstractGradient] = {
    "parameter-shift": ParameterShift(),
    "spsa": Spsa(),
    "simulated": Simulated(),
}
GradientChoice: TypeAlias = str | AbstractGradient | None
"""A name in `GRADIENTS`, one with other options such as `Spsa(num_directions=4)`, or None for no gradient."""


def find_gradient(choice: GradientChoice) -> AbstractGradient | None:
    """Return the gradient that is meant. Raises: GradientError for an unknown name, naming the nearest."""
    if choice is None or isinstance(choice, AbstractGradient):
        return choice
    if choice not in GRADIENTS:
        near = difflib.get_close_matches(str(choice), GRADIENTS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"Known: {', '.join(GRADIENTS)}, or None."
        raise GradientError(f"There is no gradient {choice!r} through a device; {hint}")
    return GRADIENTS[choice]

"""Gradients through a device, each a class that says in advance how many circuits it takes.

parameter-shift   exact in expectation; 2 or 4 circuits per angle, input row and measurement basis
spsa              two circuits per random direction, unbiased up to the square of the step, and noisy
simulated         no circuits: values from the device, derivatives from our simulator at the same angles
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from qpeft.circuits import Circuit, Input, Weight, bind
from qpeft.devices.calls import DeviceCall, Operations, num_bases
from qpeft.devices.rows import Rows
from qpeft.devices.shift_rules import shift_rule
from qpeft.errors import GradientError
from qpeft.simulation import expectations
from qpeft.simulation.noise import SampleKey
from qpeft.simulation.noise.counter import Stream


class Wanted(NamedTuple):
    """Of what derivatives are asked."""

    inputs: bool = True
    weights: bool = True


class AbstractGradient(ABC):
    """A way to derivatives of values that came from a device."""

    @abstractmethod
    def circuits_per_row(self, circuit: Circuit, wanted: Wanted) -> int:
        """Circuits that a backward pass sends per row of inputs, if none of them are equal."""

    @abstractmethod
    def products(self, call: DeviceCall, rows: Rows, grad: Tensor, wanted: Wanted) -> tuple[Tensor, Tensor]:
        """Gradients of sum(values * grad) by inputs and weights; zero where they are not wanted.

        Args:
            call: circuit, device and key, of the backward pass.
            rows: angles, of any type and place.
            grad: from above, (rows, num_observables), in no row all zero.
            wanted: of what derivatives are asked.

        Returns:
            In the shapes of `rows.inputs` and `rows.weights`, of any type and place.
        """


@dataclass(frozen=True)
class ParameterShift(AbstractGradient):
    """Every occurrence of a wanted angle shifted alone, by the rule of its gate; all observables share the results."""

    def circuits_per_row(self, circuit: Circuit, wanted: Wanted) -> int:
        """Two for a rotation, four for a controlled one, times the measurement bases."""
        return num_bases(circuit) * sum(1 for _ in _shifts(circuit, wanted))

    def products(self, call: DeviceCall, rows: Rows, grad: Tensor, wanted: Wanted) -> tuple[Tensor, Tensor]:
        """As `AbstractGradient.products`; unbiased, whatever the shots."""
        shifts = list(_shifts(call.circuit, wanted))
        bound = [_shifted(row, shift) for row in rows.bind(call.circuit) for shift in shifts]
        values = torch.from_numpy(call.values(bound)).reshape(len(rows), len(shifts), grad.shape[1])
        coefficients = torch.tensor([shift.coefficient for shift in shifts], dtype=torch.float64)
        slopes = (values * grad.cpu().double()[:, None]).sum(2) * coefficients
        input_grad, weight_grad = (slopes.new_zeros(len(rows), a.shape[1]) for a in (rows.inputs, rows.weights))
        for place, shift in enumerate(shifts):
            if isinstance(shift.angle, Input):
                input_grad[:, shift.angle.index] += slopes[:, place]
            else:
                weight_grad[:, shift.angle.index] += slopes[:, place]
        return input_grad, rows.sum_by_owner(weight_grad)


@dataclass(frozen=True)
class Spsa(AbstractGradient):
    """Simultaneous perturbation: all wanted angles of a row moved at once, along random signs.

    Expected bias is of the order of `step` squared, spread from shots of the order of 1 / `step`. The directions are a
    function of (seed, the call's step, module and number), and each row has its own.

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
        if self.num_directions < 1 or not self.step > 0:
            raise GradientError(
                f"SPSA needs at least one direction and a positive step; got {self.num_directions} and {self.step}."
            )

    def circuits_per_row(self, circuit: Circuit, wanted: Wanted) -> int:
        """Two per direction, times the measurement bases; none if there is no angle to move."""
        num_angles = wanted.inputs * circuit.num_inputs + wanted.weights * circuit.num_weights
        return 2 * self.num_directions * num_bases(circuit) if num_angles else 0

    def products(self, call: DeviceCall, rows: Rows, grad: Tensor, wanted: Wanted) -> tuple[Tensor, Tensor]:
        """As `AbstractGradient.products`."""
        inputs, weights, grad = (tensor.detach().cpu().double() for tensor in (rows.inputs, rows.weights, grad))
        signs = self._signs(call, len(rows))
        signs *= torch.cat([torch.full_like(inputs[0], wanted.inputs), torch.full_like(weights[0], wanted.weights)])
        if not signs.any():
            return torch.zeros_like(inputs), torch.zeros_like(weights)
        angles = torch.cat([inputs, weights[rows.owners]], dim=1)[:, None]
        moved = torch.stack([angles + self.step * signs, angles - self.step * signs], dim=2)
        bound = [
            bind(call.circuit, row[: inputs.shape[1]], row[inputs.shape[1] :]).operations
            for row in moved.flatten(0, 2).tolist()
        ]
        values = torch.from_numpy(call.values(bound)).reshape(*moved.shape[:3], -1)
        slopes = ((values[:, :, 0] - values[:, :, 1]) * grad[:, None]).sum(2) / (2 * self.step)
        products = (slopes[:, :, None] * signs).mean(1)
        return products[:, : inputs.shape[1]], rows.sum_by_owner(products[:, inputs.shape[1] :])

    def _signs(self, call: DeviceCall, num_rows: int) -> Tensor:
        key = SampleKey(self.seed, call.key.step, f"spsa {call.key.module}", call.key.call)
        num_angles = call.circuit.num_inputs + call.circuit.num_weights
        return Stream(key).uniforms(num_rows, self.num_directions, num_angles).sub(0.5).sign()


@dataclass(frozen=True)
class Simulated(AbstractGradient):
    """The gradient of the exact values, of which a device without noise returns unbiased estimates."""

    def circuits_per_row(self, circuit: Circuit, wanted: Wanted) -> int:  # noqa: ARG002
        """None."""
        return 0

    def products(
        self,
        call: DeviceCall,
        rows: Rows,
        grad: Tensor,
        wanted: Wanted,  # noqa: ARG002
    ) -> tuple[Tensor, Tensor]:
        """As `AbstractGradient.products`, both always."""
        input_grad, weight_grad = torch.zeros_like(rows.inputs), torch.zeros_like(rows.weights)
        for owner, weights in enumerate(rows.weights):
            own = (rows.owners == owner).to(grad.device)
            with torch.enable_grad():
                leaves = rows.inputs[own].detach().requires_grad_(), weights.detach().requires_grad_()
                products = torch.autograd.grad(expectations(call.circuit, *leaves), leaves, grad[own])
            input_grad[own], weight_grad[owner] = products
        return input_grad, weight_grad


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


class _AngleShift(NamedTuple):
    """One shifted evaluation: the operation, which angle it reads, how far it moves, and its weight in the sum."""

    position: int
    angle: Input | Weight
    amount: float
    coefficient: float


def _shifts(circuit: Circuit, wanted: Wanted) -> Iterator[_AngleShift]:
    for position, operation in enumerate(circuit.operations):
        angle = operation.angle
        if (isinstance(angle, Input) and wanted.inputs) or (isinstance(angle, Weight) and wanted.weights):
            for shift in shift_rule(operation.gate_name):
                yield _AngleShift(position, angle, shift.amount, shift.coefficient)


def _shifted(operations: Operations, shift: _AngleShift) -> Operations:
    before = operations[shift.position]
    assert isinstance(before.angle, float), "bound circuits have numbers for angles"
    after = replace(before, angle=before.angle + shift.amount)
    return (*operations[: shift.position], after, *operations[shift.position + 1 :])

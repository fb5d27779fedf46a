"""Simultaneous perturbation: two circuits per direction, however many angles there are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from qpeft.circuits import Circuit, bind
from qpeft.devices.calls import DeviceCall, num_bases
from qpeft.devices.gradients.base import AbstractGradient, Products, Wanted
from qpeft.devices.rows import Rows
from qpeft.errors import GradientError
from qpeft.simulation.checks import whole_number
from qpeft.simulation.noise import SampleKey
from qpeft.simulation.noise.counter import Stream


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

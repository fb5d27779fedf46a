"""What every gradient through a device offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor

from qpeft.circuits import Circuit
from qpeft.devices.calls import DeviceCall
from qpeft.devices.rows import Rows


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

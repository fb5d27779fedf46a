"""Values from the device, derivatives from our simulator."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qpeft.circuits import Circuit
from qpeft.devices.calls import DeviceCall
from qpeft.devices.gradients.base import AbstractGradient, Products, Wanted
from qpeft.devices.rows import Rows
from qpeft.simulation import expectations


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

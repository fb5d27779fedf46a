"""Parameter shift: derivatives as weighted values at shifted angles, exact in expectation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qpeft.circuits import Circuit, Input, Weight
from qpeft.devices.calls import DeviceCall, num_bases
from qpeft.devices.gradients.base import AbstractGradient, Products, Wanted
from qpeft.devices.gradients.terms import Terms, shifts
from qpeft.devices.rows import Rows


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

"""Parameter shift: derivatives as weighted values at shifted angles, exact in expectation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from qpeft.circuits import Circuit, Input, Weight
from qpeft.devices.calls import DeviceCall, num_bases
from qpeft.devices.gradients.allocation import moments_by_variance
from qpeft.devices.gradients.base import AbstractGradient, Products, Wanted
from qpeft.devices.gradients.row_sample import RowSample, draw_rows
from qpeft.devices.gradients.terms import Terms, shifts
from qpeft.devices.rows import Rows
from qpeft.errors import GradientError
from qpeft.simulation.checks import whole_number
from qpeft.simulation.noise import SampleKey
from qpeft.simulation.noise.counter import Stream


@dataclass(frozen=True)
class ParameterShift(AbstractGradient):
    """Every occurrence of a wanted angle shifted alone, by the rule of its gate; all observables share the results.

    Unbiased, whatever the options and the shots. Standard errors contain the noise of the shots, with correlations
    between observables of a circuit, and that of a sample of rows; the noise of `grad` from above they do not contain.

    Args:
        allocate: None for equal shots for all circuits; 'variance' to measure all of them with a share of the shots
            first, and spend the others where they lower the sum of all variances most. Each circuit is sent twice then,
            in up to eight jobs, with the same shots in all.
        pilot: that first share.
        weight_rows: derivatives by weights from so many rows per circuit and call, drawn with probabilities in
            proportion to the length of `grad` from above; None for all rows. Derivatives by inputs are always full.
        seed: of the draw, which is a function of it and of the call's step, module and number.

    What is sent depends on `grad` with either option, so a step that is repeated after an interruption must compute
    the same `grad` for its stored results to be found.
    Raises: GradientError if an option is out of range.
    """

    allocate: Literal["variance"] | None = None
    pilot: float = 0.1
    weight_rows: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.allocate not in (None, "variance"):
            raise GradientError(f"allocate is None or 'variance'; got {self.allocate!r}.")
        if not (isinstance(self.pilot, float) and 0 < self.pilot < 1):
            raise GradientError(f"pilot is a share of the shots, between 0 and 1; got {self.pilot!r}.")
        rows = None if self.weight_rows is None else whole_number(self.weight_rows) or 0
        if rows is not None and rows < 1:
            raise GradientError(
                f"weight_rows is a whole number of at least 1, or None for all rows; got {self.weight_rows!r}."
            )
        SampleKey(self.seed)

    def circuits(self, circuit: Circuit, wanted: Wanted, num_rows: int) -> int:
        """Two for a rotation, four for a controlled one, times the measurement bases; twice that if allocated."""
        return self._evaluations(circuit, wanted, num_rows) * (1 if self.allocate is None else 2)

    def shots(self, circuit: Circuit, wanted: Wanted, num_rows: int, shots: int) -> int:
        """As many allocated as not."""
        return self._evaluations(circuit, wanted, num_rows) * shots

    def products(self, call: DeviceCall, rows: Rows, grad: Tensor, wanted: Wanted) -> Products:
        """As `AbstractGradient.products`. Raises: ShotsError if there are too few shots to allocate."""
        grad = grad.detach().cpu().double()
        sample = self._sample(call, rows, grad)
        of_inputs = torch.full_like(sample.chosen, wanted.inputs)
        terms = Terms.by_shifts(call.circuit, rows, grad, of_inputs, sample.chosen & wanted.weights)
        values, covariances = self._moments(call, terms, sample)
        slopes, variances = terms.slopes(values), terms.variances(covariances, sample.probabilities.rsqrt())
        num_inputs = call.circuit.num_inputs
        input_variances, weight_variances = terms.split(variances.by_target())
        weight_variances += torch.stack([sample[own].variance(slopes[own, num_inputs:]) for own in rows.by_owner()])
        return Products(
            slopes[:, :num_inputs],
            rows.sum_by_owner(sample.expand(slopes[:, num_inputs:])),
            input_variances.sqrt(),
            weight_variances.sqrt(),
        )

    def _moments(self, call: DeviceCall, terms: Terms, sample: RowSample) -> tuple[Tensor, Tensor]:
        """Values of the terms' circuits and covariances of their errors."""
        if self.allocate is None or call.shots is None:
            values, covariances = call.moments(terms.circuits)
            return torch.from_numpy(values), torch.from_numpy(covariances)

        def variances(covariances: Tensor) -> Tensor:
            return terms.variances(covariances, 1 / sample.probabilities).by_circuit()

        return moments_by_variance(call, terms.circuits, self.pilot, variances)

    def _evaluations(self, circuit: Circuit, wanted: Wanted, num_rows: int) -> int:
        weight_rows = num_rows if self.weight_rows is None else min(num_rows, self.weight_rows)
        by_inputs, by_weights = len(list(shifts(circuit, Input))), len(list(shifts(circuit, Weight)))
        terms = wanted.inputs * num_rows * by_inputs + wanted.weights * weight_rows * by_weights
        return num_bases(circuit) * terms

    def _sample(self, call: DeviceCall, rows: Rows, grad: Tensor) -> RowSample:
        """Rows for the derivatives by weights, drawn for each circuit side by side."""
        sample = RowSample.of_all(len(rows))
        if self.weight_rows is None:
            return sample
        key = SampleKey(self.seed, call.key.step, f"rows {call.key.module}", call.key.call)
        for stream, own in enumerate(rows.by_owner()):
            drawn = draw_rows(grad[own].norm(dim=1), self.weight_rows, Stream(key, stream))
            sample.chosen[own], sample.probabilities[own] = drawn.chosen, drawn.probabilities
        return sample

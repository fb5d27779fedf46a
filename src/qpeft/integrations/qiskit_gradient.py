"""Gradients of Qiskit Machine Learning's networks by the adjoint method, in one pass for a whole batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from qiskit import QuantumCircuit
from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning.gradients.base.base_estimator_gradient import BaseEstimatorGradient
from qiskit_machine_learning.gradients.base.estimator_gradient_result import EstimatorGradientResult

from qpeft.integrations.qiskit import Estimator, pauli_table


class AdjointEstimatorGradient(BaseEstimatorGradient):
    """The `gradient` of an EstimatorQNN whose `estimator` is ours; exact, and no circuit per parameter.

        estimator = Estimator()
        EstimatorQNN(..., estimator=estimator, gradient=AdjointEstimatorGradient(estimator), default_precision=0.0)

    Args:
        estimator: ours; None for a new one.
    """

    def __init__(self, estimator: Estimator | None = None) -> None:
        self._ours = estimator or Estimator()
        super().__init__(self._ours)

    def _run(
        self,
        circuits: Sequence[QuantumCircuit],
        observables: Sequence[Any],
        parameter_values: Any,
        parameters: Sequence[Sequence[Any]],
        **options: Any,
    ) -> EstimatorGradientResult:
        values = np.asarray(parameter_values, dtype=np.float64)
        gradients: list[Any] = [None] * len(circuits)
        # A network asks for the same circuit and observable once per row: each such group is one backward pass.
        groups: dict[tuple[int, int], list[int]] = {}
        for place, (circuit, observable) in enumerate(zip(circuits, observables, strict=True)):
            groups.setdefault((id(circuit), id(observable)), []).append(place)
        slopes: dict[tuple[int, bytes], np.ndarray] = {}
        for places in groups.values():
            circuit, observable = circuits[places[0]], SparsePauliOp(observables[places[0]])
            translated, rows = self._ours.translate(circuit), values[places]
            strings, table = pauli_table([dict(observable.label_iter())], circuit.num_qubits)
            key = (id(circuit), rows.tobytes())
            if key not in slopes:
                slopes[key] = translated.slopes(rows)
            with torch.enable_grad():
                angles = torch.from_numpy(translated.angles(rows)).to(self._ours.dtype).requires_grad_()
                total = (translated.values(strings, angles) @ torch.from_numpy(table).to(self._ours.dtype)).sum()
                # Rows do not know of each other, so the gradient of their sum has each one's own.
                (by_angles,) = torch.autograd.grad(total, angles)
            by_parameters = np.einsum("ra,rap->rp", by_angles.double().numpy(), slopes[key])
            columns = {parameter: column for column, parameter in enumerate(translated.parameters)}
            for row, place in enumerate(places):
                gradients[place] = by_parameters[row, [columns[parameter] for parameter in parameters[place]]]
        metadata = [{"parameters": wanted} for wanted in parameters]
        return EstimatorGradientResult(gradients=gradients, metadata=metadata, options=options)

"""Where a plan's kernels find its angles: rows of angles, and the table of cosines and sines that all tokens share.

The table's arguments are constants plus linear forms in the weights, made by one matrix product per call. First one
for each row: half of what tokens share of the angle; for terms, all of it. Then, for each layer of phases that tokens
share, the exponent of every basis state.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qpeft.simulation.paulis import signs
from qpeft.simulation.plan import AngleSum, PhaseLayer, RotationLayer, SimulationPlan

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Layout:
    """Numbering of one plan.

    Attributes:
        rows: every angle, in the order encoding, layers, terms; gradients are collected per row.
        phases: of each layer, the first of 2**num_qubits places of its uniform phases; -1 if it has none.
        constants, from_weights: (arguments,) and (arguments, weights); arguments = constants + from_weights @ weights.
        row_weights: (rows, weights), coefficients of the weights in each angle.
    """

    rows: tuple[AngleSum, ...]
    phases: tuple[int, ...]
    constants: FloatArray
    from_weights: FloatArray
    row_weights: FloatArray


def layout_of(plan: SimulationPlan) -> Layout:
    """Numbers the angles of a plan: encoding first, then each layer's in its order, then those of terms."""
    rows = [*plan.encoding]
    for layer in plan.layers:
        rows += _angles(layer)
    scales = [0.5] * len(rows)
    rows += [term.angle or AngleSum() for term in plan.terms]
    scales += [1.0] * len(plan.terms)
    row_constants = np.array([row.constant for row in rows])
    row_weights = np.zeros((len(rows), plan.circuit.num_weights))
    for number, row in enumerate(rows):
        for index, coefficient in row.weights:
            row_weights[number, index] = coefficient
    blocks = [np.diag(scales)]
    phases, places, first = [], len(rows), len(plan.encoding)
    for layer in plan.layers:
        phases.append(-1)
        if isinstance(layer, PhaseLayer) and any(not angle.inputs for _, angle in layer.terms):
            phases[-1] = places
            blocks.append(_exponents(layer, first, len(rows), plan.circuit.num_qubits))
            places += 2**plan.circuit.num_qubits
        first += len(_angles(layer))
    matrix = np.concatenate(blocks)
    return Layout(
        rows=tuple(rows),
        phases=tuple(phases),
        constants=matrix @ row_constants,
        from_weights=matrix @ row_weights,
        row_weights=row_weights,
    )


def _angles(layer: RotationLayer | PhaseLayer) -> list[AngleSum]:
    if isinstance(layer, PhaseLayer):
        return [angle for _, angle in layer.terms]
    return [rotation.angle for rotation in layer.rotations]


def _exponents(layer: PhaseLayer, first: int, num_rows: int, num_qubits: int) -> FloatArray:
    """(2**num_qubits, num_rows): exponents of basis states by angles, relative to state 0, so that signs stay real."""
    matrix = np.zeros((2**num_qubits, num_rows))
    for number, (mask, angle) in enumerate(layer.terms):
        if not angle.inputs:
            matrix[:, first + number] = -0.5 * (signs(mask, num_qubits) - 1)
    return matrix

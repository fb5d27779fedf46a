"""Real circuits applied to vectors: exact, batched, differentiable in weights and vectors.

Where `expectations` asks what a circuit measures, this asks for the amplitudes themselves: columns of an orthogonal
matrix, or the state that a circuit makes of |0...0>, whose squares are the probabilities of the basis states.
The dense matrix is never formed. A step is undone by its transpose, so the backward pass keeps the result only and
walks back from it (the adjoint method).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from qpeft.circuits import Circuit
from qpeft.errors import SimulationError
from qpeft.simulation.autograd import AbstractOperation, row_values
from qpeft.simulation.checks import check_kinds
from qpeft.simulation.fusion import FusedProgram, FusedRotation, fused
from qpeft.simulation.threads import threads_for
from qpeft.simulation.torch_path import full_precision


def apply_circuit(
    circuit: Circuit, vectors: Float[Tensor, "*batch size"], weights: Float[Tensor, " num_weights"]
) -> Float[Tensor, "*batch size"]:
    """The circuit's orthogonal matrix times every vector.

    Args:
        circuit: of RY and of fixed gates that are real signed permutations (X, Z, CNOT, CZ, SWAP), without inputs.
        vectors: amplitudes of the 2**num_qubits basis states, qubit 0 most significant; of any norm.
        weights: trained angles, radians.

    Returns:
        Vectors of the same shape, type and norms, differentiable once in `vectors` and `weights`. Computed in float32,
        or in float64 if both are float64. torch.compile leaves the call out of its graphs.

    Raises: SimulationError if a shape does not fit the circuit, a gate or an angle is of another kind, or tensors are
        on different devices or hold other than real floating-point numbers.
    """
    if vectors.shape[-1:] != (2**circuit.num_qubits,) or weights.shape != (circuit.num_weights,):
        raise SimulationError(
            f"The circuit takes vectors of {2**circuit.num_qubits} amplitudes and {circuit.num_weights} weight(s); "
            f"got shapes {tuple(vectors.shape)} and {tuple(weights.shape)}."
        )
    check_kinds(vectors=vectors, weights=weights)
    double = vectors.dtype == weights.dtype == torch.float64
    rows, angles = (tensor.to(torch.float64 if double else torch.float32) for tensor in (vectors, weights))
    result = _row_values(_Applied(circuit), rows.reshape(vectors.shape[:-1].numel(), vectors.shape[-1]), angles)
    return result.reshape(vectors.shape).to(vectors.dtype)


@dataclass(frozen=True)
class _Applied(AbstractOperation):
    """A circuit on vectors. Steps are undone from the result, so that is what is kept."""

    name, keeps_values = "apply_circuit()", True
    circuit: Circuit

    @property
    def num_values(self) -> int:
        return 1 << self.circuit.num_qubits

    def values(self, rows: Tensor, weights: Tensor) -> Tensor:
        program = fused(self.circuit, weights.device, weights.dtype)
        vectors = rows.view_as(rows)  # torch.func takes no Function that returns what it was given
        with full_precision(weights.device), threads_for(rows.numel(), weights.device):
            matrices = _matrices(program, weights)
            for step in program.steps:
                if isinstance(step, FusedRotation):
                    vectors = step.apply(matrices[step.table][step.row], vectors)
                else:
                    vectors = step.apply(vectors)
        return vectors

    def gradients(self, kept: Tensor, weights: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        program = fused(self.circuit, weights.device, weights.dtype)
        both = torch.stack([grad, kept])
        with full_precision(weights.device), threads_for(kept.numel(), weights.device):
            matrices = _matrices(program, weights)
            correlations = [torch.empty_like(table) for table in matrices]
            for step in reversed(program.steps):
                if isinstance(step, FusedRotation):
                    correlations[step.table][step.row] = step.correlation(*both)
                    both = step.apply(matrices[step.table][step.row].T, both)
                else:
                    both = step.undo(both)
            slopes = weights.new_zeros(len(weights) + len(program.fixed))
            for table, correlation in zip(program.tables, correlations, strict=True):
                slopes.index_add_(0, table.slots.flatten(), table.slopes(correlation).flatten())
        return both[0], slopes[: len(weights)]


_row_values: Callable[[AbstractOperation, Tensor, Tensor], Tensor] = torch.compiler.disable(row_values)


def _matrices(program: FusedProgram, weights: Tensor) -> list[Tensor]:
    """Of every table (matrices, size, size)."""
    angles = torch.cat([weights, program.fixed])
    return [table.matrices(angles) for table in program.tables]

"""Columns of a circuit's orthogonal matrix, as a factor of an update."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qpeft.adapters.base import AbstractFactor
from qpeft.circuits.real import two_design
from qpeft.simulation import apply_circuit


class CircuitColumns(AbstractFactor):
    """The first `rank` columns of a circuit's matrix, as rows (rank, width).

    Row i is the state that the circuit `two_design` makes of basis state i. A width that is no power of two takes the
    next one, and the surplus entries are dropped: rows are then shorter than 1 and no longer quite orthogonal.
    """

    def __init__(self, rank: int, width: int, *, depth: int) -> None:
        super().__init__()
        self.rank, self.width = rank, width
        self.circuit = two_design(max(1, (width - 1).bit_length()), depth)
        self.angles = nn.Parameter(torch.empty(self.circuit.num_weights))

    def forward(self) -> Float[Tensor, "rank width"]:
        """The matrix, gate by gate from the rank side; the circuit's whole matrix is never formed."""
        size = 2**self.circuit.num_qubits
        basis = torch.eye(self.rank, size, dtype=self.angles.dtype, device=self.angles.device)
        return apply_circuit(self.circuit, basis, self.angles)[:, : self.width]

    @torch.no_grad()
    def initialize(self, generator: torch.Generator | None) -> None:
        """Angles of all sizes, so that columns are dense."""
        nn.init.uniform_(self.angles, -math.pi, math.pi, generator=generator)

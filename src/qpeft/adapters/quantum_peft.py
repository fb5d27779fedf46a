"""Quantum-PEFT (arXiv:2503.05431, our reconstruction): updates between columns of two circuits' matrices."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qpeft.adapters.base import (
    AbstractFactor,
    AbstractMatrixModel,
    AbstractRankedBranch,
    AbstractRankedLayer,
    RankedConfig,
    check_counts,
    option,
)
from qpeft.circuits.ansatz import two_design
from qpeft.errors import AdapterError
from qpeft.simulation import apply_circuit


@dataclass
class QuantumPeftConfig(RankedConfig, method="quantum_peft"):
    """Configuration of a Quantum-PEFT adapter: our reconstruction from the paper, whose code is not public.

        y = base(x) + alpha / rank * U diag(lambda) V^T dropout(x)

    U (out_features x rank) and V (in_features x rank) are columns of the orthogonal matrices of two circuits of RY and
    CZ. A width w takes n = ceil(log2 w) qubits, at least 1, and (2 depth + 1) n - 2 depth angles; lambda takes `rank`.
    lambda starts at zero, so a fresh adapter leaves the model as it is.

    Raises: AdapterError for a value out of range.
    Source: arXiv:2503.05431; docs/quantum_peft.md says what is the paper's and what is ours.
    """

    depth: int = option(4, "Entangling layers of each circuit, the paper's L.")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts({"depth": self.depth})


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


class QuantumPeftBranch(AbstractRankedBranch):
    """The update that one Quantum-PEFT adapter adds to one linear layer.

        update = scaling * x down^T diag(strengths) up

    Shapes: x (..., in_features); down (rank, in_features) is V^T, up (rank, out_features) is U^T, each a
    `CircuitColumns`; strengths (rank,) is the paper's Lambda.
    Source: arXiv:2503.05431, our reconstruction; see docs/quantum_peft.md.
    """

    down: CircuitColumns
    up: CircuitColumns

    def __init__(
        self, config: QuantumPeftConfig, in_features: int, out_features: int, *, rank: int, scaling: float
    ) -> None:
        super().__init__(config, in_features, out_features, rank=rank, scaling=scaling)
        self.strengths = nn.Parameter(torch.empty(rank))

    @staticmethod
    def make_factor(config: QuantumPeftConfig, rank: int, width: int) -> CircuitColumns:
        """Columns of a circuit of this config's depth.

        Args:
            config: with the depth.
            rank: number of columns.
            width: entries of a column that are kept.
        """
        return CircuitColumns(rank, width, depth=config.depth)

    def bottleneck(self, h: Float[Tensor, "*batch rank"]) -> Float[Tensor, "*batch rank"]:
        """h, each entry times its strength."""
        return h * self.strengths

    @torch.no_grad()
    def initialize(self, generator: torch.Generator | None) -> None:
        """Random columns, strengths zero: the update starts at zero. Does nothing on the meta device."""
        if next(self.parameters()).is_meta:
            return
        self.down.initialize(generator)
        self.up.initialize(generator)
        nn.init.zeros_(self.strengths)


class QuantumPeftLayer(AbstractRankedLayer, method="quantum_peft"):
    """A linear layer plus the updates of its active Quantum-PEFT adapters; see `QuantumPeftBranch`.

    Shapes: x (..., in_features), y (..., out_features) in the type that the base layer returns.
    """

    branch_class = QuantumPeftBranch

    def make_branch(self, config: RankedConfig) -> AbstractRankedBranch:
        """As of any ranked layer. Raises: AdapterError for a rank above the layer's smaller width."""
        rank = config.rank_of(self.name)
        if rank > (largest := min(self.in_features, self.out_features)):
            raise AdapterError(
                f"rank {rank} is more than a matrix of {self.out_features} x {self.in_features} can have, as that of "
                f"{self.name!r}: set rank, or rank_pattern for this layer, to {largest} at most."
            )
        return super().make_branch(config)


class QuantumPeftModel(AbstractMatrixModel, layer=QuantumPeftLayer):
    """Made by `get_peft_model(model, QuantumPeftConfig(...))`; without target_modules, PEFT's usual ones for LoRA.

    Raises: AdapterError for a target that is not linear, a rank above a layer's width, and for mixed batches that
    cannot be.
    """

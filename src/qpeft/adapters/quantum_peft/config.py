"""Options of a Quantum-PEFT adapter, as PEFT stores them in adapter_config.json."""

from __future__ import annotations

from dataclasses import dataclass

from qpeft.adapters.base import RankedConfig, check_counts, option
from qpeft.adapters.bridge import peft_type


@dataclass
class QuantumPeftConfig(RankedConfig):
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
        self.peft_type = peft_type("QUANTUM_PEFT")
        check_counts({"depth": self.depth})

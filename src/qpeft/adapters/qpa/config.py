"""Options of a QPA adapter, as PEFT stores them in adapter_config.json."""

from __future__ import annotations

from dataclasses import dataclass

from qpeft.adapters.base import RankedConfig, check_counts, option
from qpeft.adapters.bridge import peft_type


@dataclass
class QpaConfig(RankedConfig):
    """Configuration of a QPA (quantum parameter adaptation) adapter.

        y = base(x) + alpha / rank * up(down(dropout(x)))

    `down` (rank x in_features) and `up` (out_features x rank) are LoRA's A and B, each cut into chunks. A circuit with
    a basis state for every chunk, and a small network that reads the basis state and its probability, generate them.
    For m chunks the circuit has n = ceil(log2 m) qubits, at least 1, and each matrix takes

        n * depth + hidden_size * (n + 2) + (hidden_size + 1) * chunk_size

    parameters, whatever the rank and the width. A fresh adapter leaves the model as it is.

    Raises: AdapterError for a value out of range.
    Source: arXiv:2410.09846; docs/qpa.md lists the departures.
    """

    chunk_size: int = option(32, "Entries of a matrix that one basis state generates; fewer need more qubits.")
    hidden_size: int = option(16, "Width of the network between the circuit and a chunk.")
    depth: int = option(8, "Layers of RY and CNOT in each circuit.")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = peft_type("QPA")
        check_counts({name: getattr(self, name) for name in ("chunk_size", "hidden_size", "depth")})

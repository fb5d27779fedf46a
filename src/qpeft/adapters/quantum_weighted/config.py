"""What a quantum-weighted adapter is made of: its options, its circuit, and who shares one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import combinations

from qpeft.adapters.base import AdapterConfig, check_counts, option
from qpeft.adapters.base.config import check_numbers
from qpeft.circuits import Circuit
from qpeft.circuits.ansatz import cnot_chain, cz_ring, two_design
from qpeft.circuits.circuit import Input, Operation, Weight
from qpeft.errors import AdapterError

ANSATZE = {"cz_ring": cz_ring, "cnot_chain": cnot_chain, "two_design": two_design}
"""Circuits without data whose states are real, by the name that `ansatz` gives them."""

CIRCUITS = ("trained", "free", "product", "linear")
READINGS = ("calibrated", "plain")
MAPPINGS = ("random", "train", "network")
SHARES = ("model", "kind", "layer", "block", "module")
STARTS = ("clifford", "random")

SIZES = ("rank", "num_qubits", "depth", "bond_dimension", "hidden_size")

MAX_DEFAULT_STRINGS = 255
"""All strings of 8 qubits. More need more shots to be told from zero, and the matrices P grow with them."""
MAX_SEARCHED_STRINGS = 4095
"""All strings of 12 qubits; a Clifford start keeps one per angle of them."""


@dataclass
class QuantumWeightedConfig(AdapterConfig, method="quantum_weighted"):
    """Configuration of a quantum-weighted adapter.

        y = base(x) + U S R V^T dropout(x);   R = sum over k of numbers_k(theta) P_k

    The angles theta of a circuit make the numbers; the rest is frozen, as the package's head says. Trained are the
    angles of one circuit for each group of layers that `share` makes, and what `mapping` puts in place of the fixed P.
    A fresh adapter leaves the model as it is. Frozen parts follow from the base weights and `init_seed`; a file holds
    the angles and a fingerprint of the frozen parts.

    Raises: AdapterError for a value out of range, an unknown name, or more strings than the qubits have.
    Source: docs/quantum_weighted.md; with `circuit='free'` it is TinyLoRA (arXiv:2602.04118).
    """

    rank: int = option(8, "Singular directions of each layer that the update mixes.")
    num_qubits: int = option(8, "Qubits of each circuit.")
    depth: int = option(2, "Layers of entangling gates, between depth + 1 layers of RY.")
    ansatz: str = option("cz_ring", "Circuit: cz_ring, cnot_chain or two_design.")
    start: str = option("clifford", "Angles to start from: clifford (0 or pi/2, slopes of 1) or random.")
    share: str = option("layer", "Who shares a circuit: model, kind (of module), layer, block (of a layer) or module.")
    num_strings: int | None = option(
        None, "Strings of Z that are read, by number of Z, then place; unset: all, at most 255, or one per angle."
    )
    reading: str = option("calibrated", "calibrated: through the inverse of the slope at the start; plain: times gain.")
    gain: float = option(
        4.0, "What is read is multiplied by this; more keeps angles near their start, and takes more shots."
    )
    ridge: float = option(0.05, "Slopes far below this part of the largest are not inverted (calibrated reading).")
    mapping: str = option(
        "random",
        "From numbers to matrices: random (fixed), train (a trained tensor train) or network (trained, as QPA's).",
    )
    bond_dimension: int = option(4, "Of the tensor train.")
    hidden_size: int = option(16, "Of the network.")
    circuit: str = option("trained", "trained; or a control: free (TinyLoRA), product (no entangling), linear.")
    finalized: bool = option(False, "Set by `finalize`: the values are measured, and the file holds them.")
    save_factors: bool = option(False, "Whether the frozen singular vectors are saved too, to load on other weights.")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts({name: getattr(self, name) for name in SIZES})
        check_numbers({"gain": self.gain, "ridge": self.ridge})
        choices = {
            "ansatz": tuple(ANSATZE),
            "start": STARTS,
            "share": SHARES,
            "mapping": MAPPINGS,
            "reading": READINGS,
            "circuit": CIRCUITS,
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise AdapterError(f"{name} must be one of {', '.join(known)}; got {getattr(self, name)!r}.")
        if self.ridge < 0:
            raise AdapterError(f"ridge must be 0 or more; got {self.ridge}.")
        if self.num_strings is not None:
            check_counts({"num_strings": self.num_strings})
            if self.num_strings > 2**self.num_qubits - 1:
                raise AdapterError(
                    f"{self.num_qubits} qubits have {2**self.num_qubits - 1} strings of Z; got num_strings "
                    f"{self.num_strings}. Take fewer strings or more qubits."
                )

    def build_circuit(self) -> Circuit:
        """Return the circuit of every group: angles are its inputs, so that all groups are rows of one batch."""
        # A control without entangling gates keeps all others.
        made = ANSATZE[self.ansatz](self.num_qubits, self.depth)
        operations = [
            Operation(op.gate_name, op.qubits, Input(op.angle.index)) if isinstance(op.angle, Weight) else op
            for op in made.operations
            if self.circuit != "product" or len(op.qubits) == 1
        ]
        # A Clifford start reads one string per angle, of any number of Z, so all are looked at.
        limit = MAX_SEARCHED_STRINGS if self.start == "clifford" else MAX_DEFAULT_STRINGS
        count = self.num_strings or min(2**self.num_qubits - 1, limit)
        return Circuit(self.num_qubits, tuple(operations), tuple(z_strings(self.num_qubits, count)))

    def group_of(self, name: str) -> str:
        """Return the group that the layer called `name` belongs to."""
        if self.share == "module":
            return name
        if self.share in ("kind", "block"):
            return name.rpartition(".")[2 if self.share == "kind" else 0]
        number = re.search(r"\.(\d+)\.", f".{name}.")
        # Layers outside the numbered ones, such as a head, share one circuit of their own.
        return "" if self.share == "model" else number[1] if number else "-"


def z_strings(num_qubits: int, count: int) -> list[str]:
    """Return the first `count` strings of Z and I, without the identity: by number of Z, then place, qubit 0 first."""
    strings: list[str] = []
    for weight in range(1, num_qubits + 1):
        for places in combinations(range(num_qubits), weight):
            if len(strings) == count:
                return strings
            strings.append("".join("Z" if qubit in places else "I" for qubit in range(num_qubits)))
    return strings

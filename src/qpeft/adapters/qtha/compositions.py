"""QTHA and its ablations as compositions of blocks, by name.

Each entry names only the blocks in which it differs from QTHA, so a study changes one thing at a time; sizes, first
values and learning come from the other options. docs/qtha.md has the table with formulas.
"""

from __future__ import annotations

from typing import Any

_LORA_FACTORS = {"down": "dense", "up": "dense"}

COMPOSITIONS: dict[str, dict[str, Any]] = {
    "no_circuit": {"middle": "none"},
    "frozen_circuit": {"middle": "frozen_circuit"},
    "hilbert_twin": {"middle": "hilbert"},
    "sinusoid_twin": {"middle": "sinusoid"},
    "tanh_twin": {"middle": "tanh"},
    "mlp_twin": {"middle": "mlp"},
    "constant_twin": {"middle": "constant"},
    "classical_form": {"middle": "classical_form", "ansatz": "ring_cz"},
    "hadamard_fusion": {"fusion": "hadamard"},
    "tensor_network_only": {"down": "bare_mpo", "up": "bare_mpo", "middle": "none", "classical_path": False},
    "lora_mixing_matrix": _LORA_FACTORS | {"middle": "none"},
    "lora_circuit_only": _LORA_FACTORS | {"classical_path": False},
    "lora_circuit": dict(_LORA_FACTORS),
    "lora_mlp": _LORA_FACTORS | {"middle": "mlp"},
}

"""Quantum-weighted adapters: circuits that never see the text make the weights of the update.

    q = values of strings of Z after the circuit with trained angles theta          (one row per group of layers)
    y = J^+ (q(theta) - q(theta_0))     or   gain (q(theta) - q(theta_0))           numbers that start at zero
    R_m = sum_k y_k P_mk                                                            (rank x rank), fixed random P_mk
    update_m = U_m S_m R_m V_m^T                                                    U, S, V: top of the layer's own SVD

Only the angles are trained. They are the same for all tokens, so a step costs one evaluation per group of layers,
whatever the batch, the model and the number of layers; and the update is a matrix of the rank, so it merges exactly.

Sources: TinyLoRA, arXiv:2602.04118, for free numbers y; docs/quantum_weighted.md for the reading and its measurements.
"""

from qpeft.adapters.quantum_weighted.bank import BankEvaluator, CircuitBank
from qpeft.adapters.quantum_weighted.config import QuantumWeightedConfig
from qpeft.adapters.quantum_weighted.layer import QuantumWeightedLayer, QuantumWeightedModel, circuit_banks

__all__ = [
    "BankEvaluator",
    "CircuitBank",
    "QuantumWeightedConfig",
    "QuantumWeightedLayer",
    "QuantumWeightedModel",
    "circuit_banks",
]

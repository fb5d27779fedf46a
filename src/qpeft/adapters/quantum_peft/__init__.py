"""Updates between columns of two circuits' matrices: our reconstruction of Quantum-PEFT (arXiv:2503.05431)."""

from qpeft.adapters.quantum_peft.config import QuantumPeftConfig
from qpeft.adapters.quantum_peft.layer import QuantumPeftLayer
from qpeft.adapters.quantum_peft.model import QuantumPeftModel

__all__ = ["QuantumPeftConfig", "QuantumPeftLayer", "QuantumPeftModel"]

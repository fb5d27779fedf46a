"""Matrix product operators, and the factorisation of widths into their modes."""

from qpeft.tensor_networks.modes import Modes, factorize
from qpeft.tensor_networks.mpo import MatrixProductOperator, mpo_parameter_count

__all__ = ["MatrixProductOperator", "Modes", "factorize", "mpo_parameter_count"]

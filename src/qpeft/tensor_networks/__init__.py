"""Matrix product operators, products over pairs of axes, and the factorisation of widths into modes and axes."""

from qpeft.tensor_networks.mpo import MatrixProductOperator, Modes, factorize, mpo_parameter_count, open_bond
from qpeft.tensor_networks.pairs import PairNetwork

__all__ = ["MatrixProductOperator", "Modes", "PairNetwork", "factorize", "mpo_parameter_count", "open_bond"]

"""What all our adapters share: options, the layer and the tuner, matrices as updates, tensor networks as factors."""

from qpeft.adapters.base.branch import AbstractBranch, AbstractMatrixBranch, FactoredBranch, FactoredMatrixBranch
from qpeft.adapters.base.config import AdapterConfig, RankedConfig, check_counts, option
from qpeft.adapters.base.factors import AbstractFactor, BareMpoFactor, Factor, MpoFactor, build_factor
from qpeft.adapters.base.layer import AbstractAdapterLayer, generator, require_linear
from qpeft.adapters.base.matrix import AbstractMatrixLayer, AbstractMatrixModel
from qpeft.adapters.base.model import AbstractAdapterModel
from qpeft.adapters.base.widths import check_factors, given_factors

__all__ = [
    "AbstractAdapterLayer",
    "AbstractAdapterModel",
    "AbstractBranch",
    "AbstractFactor",
    "AbstractMatrixBranch",
    "AbstractMatrixLayer",
    "AbstractMatrixModel",
    "AdapterConfig",
    "BareMpoFactor",
    "Factor",
    "FactoredBranch",
    "FactoredMatrixBranch",
    "MpoFactor",
    "RankedConfig",
    "build_factor",
    "check_counts",
    "check_factors",
    "generator",
    "given_factors",
    "option",
    "require_linear",
]

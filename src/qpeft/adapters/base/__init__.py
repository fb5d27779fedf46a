"""What all our adapters share: options, the layer and the tuner, matrices as updates, tensor networks as factors."""

from qpeft.adapters.base.branch import (
    AbstractBranch,
    AbstractMatrixBranch,
    FactoredBranch,
    FactoredMatrixBranch,
)
from qpeft.adapters.base.config import AdapterConfig, GradientStartConfig, RankedConfig, check_counts, option
from qpeft.adapters.base.factors import (
    AbstractFactor,
    AbstractRandomFactor,
    BareMpoFactor,
    Factor,
    MpoFactor,
    build_factor,
    check_factors,
    given_factors,
)
from qpeft.adapters.base.layer import AbstractAdapterLayer, generator, require_linear
from qpeft.adapters.base.matrix import (
    AbstractLoraLikeBranch,
    AbstractMatrixLayer,
    AbstractMatrixModel,
    AbstractRankedBranch,
    AbstractRankedLayer,
)
from qpeft.adapters.base.model import AbstractAdapterModel

__all__ = [
    "AbstractAdapterLayer",
    "AbstractAdapterModel",
    "AbstractBranch",
    "AbstractFactor",
    "AbstractLoraLikeBranch",
    "AbstractMatrixBranch",
    "AbstractMatrixLayer",
    "AbstractMatrixModel",
    "AbstractRandomFactor",
    "AbstractRankedBranch",
    "AbstractRankedLayer",
    "AdapterConfig",
    "BareMpoFactor",
    "Factor",
    "FactoredBranch",
    "FactoredMatrixBranch",
    "GradientStartConfig",
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

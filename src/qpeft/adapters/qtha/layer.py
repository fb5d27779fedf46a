"""A linear layer with QTHA adapters beside it."""

from __future__ import annotations

from qpeft.adapters.base import AbstractAdapterLayer, generator
from qpeft.adapters.qtha.branch import QthaBranch
from qpeft.adapters.qtha.config import QthaConfig
from qpeft.errors import NotMergeableError


class QthaLayer(AbstractAdapterLayer, method="qtha"):
    """A linear layer plus the updates of its active QTHA adapters.

        y = base(x) + sum over active adapters of branch(x)

    Shapes: x (..., in_features), y (..., out_features) in the type that the base layer returns.
    Raises: AdapterError if the base layer is not linear; NotMergeableError from `merge`: a circuit is not linear in x.
    """

    def make_branch(self, config: QthaConfig) -> QthaBranch:
        """A branch of the rank and alpha that the config's patterns give this layer."""
        rank, scaling = config.rank_of(self.name), config.scaling_of(self.name)
        branch = QthaBranch(config, self.in_features, self.out_features, rank=rank, scaling=scaling)
        branch.initialize(config, generator(config.init_seed, self.name))
        return branch

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:  # noqa: ARG002
        """Raises: NotMergeableError always; the update depends on the input."""
        raise NotMergeableError(
            "A QTHA update runs through a circuit that depends on the input, so no weight matrix equals it and it "
            "cannot be merged. Keep the adapter beside the model: PeftModel.from_pretrained(model, folder). `qpeft "
            "merge` puts the nearest linear map in the circuit's place and reports what that loses."
        )

    def unmerge(self) -> None:
        """Nothing to do: QTHA is never merged."""

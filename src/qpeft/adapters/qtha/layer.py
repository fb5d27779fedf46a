"""A linear layer with QTHA adapters beside it."""

from __future__ import annotations

import logging

from torch import nn

from qpeft.adapters.base import AbstractAdapterLayer, AbstractAdapterModel, AdapterConfig, generator
from qpeft.adapters.qtha.bottleneck import CircuitBottleneck
from qpeft.adapters.qtha.branch import QthaBranch
from qpeft.adapters.qtha.config import CIRCUIT_SIZED, MAX_QUBITS, QthaConfig
from qpeft.errors import AdapterError, NotMergeableError


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


# The tuner: puts QTHA layers into a model, the way PEFT asks its methods to.


logger = logging.getLogger(__name__)


class QthaModel(AbstractAdapterModel, layer=QthaLayer):
    """Made by `get_peft_model(model, QthaConfig(...))`; without target_modules, PEFT's usual ones for LoRA are taken.

    Raises: AdapterError for a target that is not linear, and for mixed batches that cannot be, such as while circuits
    run on a quantum device or with a machine's noise; NotMergeableError for a merge.
    """

    def _prepare_model(self, peft_config: AdapterConfig, model: nn.Module) -> None:
        super()._prepare_model(peft_config, model)
        assert isinstance(peft_config, QthaConfig)
        is_left_to_us = peft_config.num_qubits is None and peft_config.bottleneck in CIRCUIT_SIZED
        if is_left_to_us and not peft_config.inference_mode:
            for rank in sorted({rank for rank in peft_config.ranks if rank > MAX_QUBITS}):
                size = peft_config.qubits_per_circuit(rank)
                logger.warning(
                    "rank %d: %d circuits of %d qubits side by side in each layer, since one circuit has at most %d; "
                    "num_qubits sets another number.",
                    rank,
                    rank // size,
                    size,
                    MAX_QUBITS,
                )

    def _check_merge_allowed(self) -> None:
        raise NotMergeableError(
            "QTHA adapters cannot be merged: their update runs through a circuit that depends on the input. "
            "Keep the adapter beside the model: PeftModel.from_pretrained(model, folder). `qpeft merge` puts the "
            "nearest linear map in the circuit's place and reports what that loses."
        )

    def _check_mixed(self) -> None:
        # What a device is sent is numbered and paid for by module and step: it gets whole batches, of one adapter.
        if any(isinstance(module, CircuitBottleneck) and module.has_evaluator for module in self.modules()):
            raise AdapterError(
                "adapter_names needs circuits on the simulator: run one batch per adapter, with set_adapter(name) "
                "before each, or call qpeft.set_quantum_device(model, None) first."
            )

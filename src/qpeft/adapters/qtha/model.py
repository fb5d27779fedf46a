"""The tuner: puts QTHA layers into a model, the way PEFT asks its methods to."""

from __future__ import annotations

from qpeft.adapters.base import AbstractAdapterModel
from qpeft.adapters.qtha.layer import QthaLayer
from qpeft.errors import NotMergeableError


class QthaModel(AbstractAdapterModel):
    """Made by `get_peft_model(model, QthaConfig(...))`; without target_modules, PEFT's usual ones for LoRA are taken.

    Raises: AdapterError for a target that is not linear, and for `adapter_names` in a forward pass (mixed batches);
    NotMergeableError for a merge.
    """

    prefix = "qtha_"
    tuner_layer_cls = QthaLayer

    def _check_merge_allowed(self) -> None:
        raise NotMergeableError(
            "QTHA adapters cannot be merged: their update runs through a circuit that depends on the input. "
            "Keep the adapter beside the model: PeftModel.from_pretrained(model, folder). `qpeft merge` puts the nearest "
            "linear map in the circuit's place and reports what that loses."
        )

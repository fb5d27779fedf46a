"""The tuner: puts QTHA layers into a model, the way PEFT asks its methods to."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import nn

from qpeft.adapters.bridge import (
    TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING,
    BaseTuner,
    get_pattern_key,
)
from qpeft.adapters.qtha.config import QthaConfig
from qpeft.adapters.qtha.layer import QthaLayer
from qpeft.errors import AdapterError, NotMergeableError


class QthaModel(BaseTuner):
    """Made by `get_peft_model(model, QthaConfig(...))`; without target_modules, PEFT's usual ones for LoRA are taken.

    Raises: AdapterError for a target that is not linear, and for `adapter_names` in a forward pass (mixed batches).
    """

    prefix = "qtha_"
    tuner_layer_cls = QthaLayer
    target_module_mapping = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING

    def _create_and_replace(
        self,
        peft_config: QthaConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **_: Any,
    ) -> None:
        rank = peft_config.rank_pattern.get(get_pattern_key(peft_config.rank_pattern, current_key), peft_config.rank)
        alpha = peft_config.alpha_pattern.get(
            get_pattern_key(peft_config.alpha_pattern, current_key), peft_config.alpha
        )
        if isinstance(target, QthaLayer):
            target.update_layer(adapter_name, peft_config, rank=rank, alpha=alpha)
            return
        layer = QthaLayer(target, current_key, adapter_name)
        layer.update_layer(adapter_name, peft_config, rank=rank, alpha=alpha)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)

    def _check_merge_allowed(self) -> None:
        raise NotMergeableError(
            "QTHA adapters cannot be merged: their update runs through a circuit that depends on the input. "
            "Keep the adapter beside the model: PeftModel.from_pretrained(model, folder)."
        )

    def _enable_peft_forward_hooks(self, *_: Any, **kwargs: Any) -> AbstractContextManager[None]:
        if kwargs.get("adapter_names") is not None:
            raise AdapterError(
                "QTHA has no mixed batches: adapter_names would be ignored. Run one batch per adapter, "
                "with model.set_adapter(name) before each."
            )
        return nullcontext()

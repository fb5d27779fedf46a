"""The tuner: puts QTHA layers into a model, the way PEFT asks its methods to."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import nn

from qpeft.adapters.bridge import (
    TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING,
    BaseTuner,
    BaseTunerLayer,
    get_pattern_key,
)
from qpeft.adapters.qtha.config import QthaConfig
from qpeft.adapters.qtha.layer import QthaLayer, require_linear
from qpeft.errors import AdapterError, NotMergeableError


class QthaModel(BaseTuner):
    """Made by `get_peft_model(model, QthaConfig(...))`; without target_modules, PEFT's usual ones for LoRA are taken.

    Raises: AdapterError for a target that is not linear, and for `adapter_names` in a forward pass (mixed batches).
    """

    prefix = "qtha_"
    tuner_layer_cls = QthaLayer
    target_module_mapping = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING

    def _prepare_model(self, peft_config: QthaConfig, model: nn.Module) -> None:
        # Before the first layer is replaced, so that a refused target leaves the model as it was.
        modules = dict(model.named_modules())
        inside = tuple(f"{name}." for name, module in modules.items() if isinstance(module, BaseTunerLayer))
        for name, module in modules.items():
            if name and not name.startswith(inside) and self._check_target_module_exists(peft_config, name):
                require_linear(module, name)

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

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        # PEFT's own rule knows the name only in the last two places of a key. Files must not hold it at all: they are
        # loaded under other names, and transformers puts the name right behind `qtha_branch`.
        layer, mark, rest = key.rpartition(f".qtha_branch.{adapter_name}.")
        name: str = f"{layer}.qtha_branch.{rest}" if mark else super()._remove_adapter_name_from_key(key, adapter_name)
        return name

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

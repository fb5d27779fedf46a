"""The tuner: puts layers of one method into a model, the way PEFT asks its methods to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, ClassVar

from torch import nn
from transformers import PreTrainedModel

from qpeft.adapters.base.config import AdapterConfig
from qpeft.adapters.base.layer import AbstractAdapterLayer, require_linear
from qpeft.adapters.base.targets import check_targets, warn_of_unfit
from qpeft.adapters.bridge import (
    TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING,
    AuxiliaryTrainingWrapper,
    BaseTuner,
    get_quantization_kwargs,
    targeted_modules,
)
from qpeft.errors import AdapterError


class AbstractAdapterModel(BaseTuner):
    """Made by `get_peft_model`; without target_modules, PEFT's usual ones for LoRA are taken.

    A method names its layers, `class TheirModel(AbstractAdapterModel, layer=TheirLayer)`. `model(tokens,
    adapter_names=[...])` sends each row of a batch through its own adapter.
    Raises: AdapterError for a target that is not linear or on which an adapter would not act, for options that name
    what the model does not have, and for mixed batches that cannot be; see `check_targets` and `mixed_batch`.
    """

    prefix: str
    tuner_layer_cls: ClassVar[type[AbstractAdapterLayer]]
    target_module_mapping = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING

    def __init_subclass__(cls, *, layer: type[AbstractAdapterLayer] | None = None) -> None:
        super().__init_subclass__()
        if layer is not None:
            # transformers takes the prefix for the method's name and an underscore.
            cls.tuner_layer_cls, cls.prefix = layer, layer.adapter_layer_names[0].removesuffix("branch")

    def _prepare_model(self, peft_config: AdapterConfig, model: nn.Module) -> None:
        # Before the first layer is replaced, so that a refused target leaves the model as it was.
        if peft_config.inference_mode:
            warn_of_unfit(model, peft_config)
        else:
            check_targets(model, peft_config, strict=False)
        for name in targeted_modules(model, peft_config):
            require_linear(model.get_submodule(name), name)

    def _post_injection_hook(self, model: nn.Module, config: AdapterConfig, adapter_name: str) -> None:
        super()._post_injection_hook(model, config, adapter_name)
        self.training = model.training
        # PEFT's models take adapter_names out before they call this one; transformers' own would drop it unread.
        if _refuse_adapter_names not in model._forward_pre_hooks.values():
            model.register_forward_pre_hook(_refuse_adapter_names, with_kwargs=True)

    def _create_and_replace(
        self,
        peft_config: AdapterConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **_: Any,
    ) -> None:
        if isinstance(target, self.tuner_layer_cls):
            target.update_layer(adapter_name, peft_config)
            return
        layer = self.tuner_layer_cls(target, current_key, adapter_name, **get_quantization_kwargs(self))
        layer.update_layer(adapter_name, peft_config)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        # PEFT's own rule knows the name only in the last two places of a key. Files must not hold it at all: they are
        # loaded under other names, and transformers puts the name right behind the dictionary of branches.
        (branches,) = cls.tuner_layer_cls.adapter_layer_names
        layer, mark, rest = key.rpartition(f".{branches}.{adapter_name}.")
        name: str = f"{layer}.{branches}.{rest}" if mark else super()._remove_adapter_name_from_key(key, adapter_name)
        return name

    def _enable_peft_forward_hooks(self, *_: Any, **kwargs: Any) -> AbstractContextManager[None]:
        if (adapter_names := kwargs.get("adapter_names")) is None:
            return nullcontext()
        self._check_mixed()
        return mixed_batch(self, adapter_names, kwargs.get("num_beams"))

    def add_weighted_adapter(self, *_: Any, **__: Any) -> None:
        """Refuse what PEFT has for LoRA and IA3 alone; it looks for the method here."""
        raise AdapterError(
            "add_weighted_adapter would sum weights, but no sum of two qpeft adapters' weights gives the sum of their "
            "updates. To add the updates, activate both adapters: model.base_model.set_adapter([...])."
        )

    def _check_mixed(self) -> None:
        """Raises: AdapterError where the method cannot mix adapters within a batch."""


def _refuse_adapter_names(model: nn.Module, _: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if kwargs.get("adapter_names") is None:
        return
    if any(isinstance(module, AbstractAdapterLayer) for module in model.modules()):
        raise AdapterError(
            f"{type(model).__name__} would ignore adapter_names: mixed batches need PEFT's own model, as of "
            "PeftModel.from_pretrained(model, folder). Here, set_adapter(name) before each batch."
        )


# Mixed batches: `model(tokens, adapter_names=["first", "__base__", "second"])`, an adapter for each row.


BASE = "__base__"
"""In `adapter_names`, PEFT's word for a row without an adapter."""


@contextmanager
def mixed_batch(tuner: nn.Module, adapter_names: Sequence[str], num_beams: int | None) -> Iterator[None]:
    """A context in which row i of every batch goes through adapter_names[i].

    Args:
        tuner: with the layers of one method.
        adapter_names: one a row; `BASE` for none.
        num_beams: of a beam search, which repeats each row so many times.

    Raises: AdapterError in training mode, while merged, beside modules_to_save, or with a name that no layer knows.
    """
    layers = [module for module in tuner.modules() if isinstance(module, AbstractAdapterLayer)]
    _check(tuner, adapter_names, layers)
    names = [name for name in adapter_names for _ in range(num_beams or 1)]
    # Of (batch, tokens, features): with a dimension less, tokens of all rows are mixed up, as an expert gets them.
    dimensions = 3 if isinstance(tuner.get_submodule("model"), PreTrainedModel) else 2
    with ExitStack() as contexts:
        for layer in layers:
            contexts.enter_context(layer.mixed(names, dimensions=dimensions))
        yield


def _check(tuner: nn.Module, adapter_names: Sequence[str], layers: Sequence[AbstractAdapterLayer]) -> None:
    if tuner.training:
        raise AdapterError("adapter_names is for inference; call model.eval() first, or train one adapter a batch.")
    if any(layer.merged for layer in layers):
        raise AdapterError("adapter_names needs adapters beside the weights; call model.unmerge_adapter() first.")
    if any(isinstance(module, AuxiliaryTrainingWrapper) for module in tuner.modules()):
        # PEFT would send all rows through those of the active adapter.
        raise AdapterError("adapter_names does not reach modules_to_save: run one batch per adapter, by set_adapter.")
    known = {name for layer in layers for name in layer.branches}
    if unknown := sorted({*adapter_names} - known - {BASE}):
        raise AdapterError(
            f"adapter_names holds {', '.join(map(repr, unknown))}; the model has {', '.join(sorted(known))}, and "
            f"{BASE!r} for no adapter."
        )

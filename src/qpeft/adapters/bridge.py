"""The only file that touches what PEFT does not promise to keep.

PEFT's public `register_peft_method` accepts only names that are members of the `PeftType` enum, so a method from
outside PEFT has to become one first. That, and the private modules that our tuners build on, are here, nowhere else.
"""

from __future__ import annotations

import copy
from typing import Any

from peft import PeftConfig, PeftType
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import (
    BaseTuner,
    BaseTunerLayer,
    _maybe_include_all_linear_layers,
    check_adapters_to_merge,
    check_target_module_exists,
)
from peft.utils import (
    INCLUDE_LINEAR_LAYERS_SHORTHAND,
    TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING,
    register_peft_method,
)
from peft.utils.other import AuxiliaryTrainingWrapper, get_pattern_key
from peft.utils.quantization_utils import (
    ForwardOnlyQuantizationBackend,
    QuantizationBackend,
    get_quantization_kwargs,
    resolve_quantization_backend,
)
from torch import nn

__all__ = [
    "INCLUDE_LINEAR_LAYERS_SHORTHAND",
    "TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING",
    "AuxiliaryTrainingWrapper",
    "BaseTuner",
    "BaseTunerLayer",
    "LoraLayer",
    "QuantizationBackend",
    "changes_layers",
    "check_adapters_to_merge",
    "check_target_module_exists",
    "config_classes",
    "get_pattern_key",
    "get_quantization_kwargs",
    "outside_adapters",
    "peft_type",
    "quantization_backend",
    "register",
    "targeted_modules",
    "unpack",
]


def peft_type(name: str) -> PeftType:
    """The member of PEFT's enum called `name` (upper case), added if it is not there yet."""
    if name not in PeftType.__members__:
        member = str.__new__(PeftType, name)
        member._name_, member._value_ = name, name
        PeftType._member_map_[name] = member
        PeftType._member_names_.append(name)
        PeftType._value2member_map_[name] = member
        type.__setattr__(PeftType, name, member)
    return PeftType[name]


def register(name: str, *, config_class: type[PeftConfig], model_class: type[BaseTuner]) -> None:
    """Make PEFT know a method. A second call with the same classes, as after a re-import, changes nothing.

    Args:
        name: lower case; the tuner's `prefix` must be `name + "_"`, from which transformers derives its own names.
        config_class: dataclass whose `peft_type` is `peft_type(name.upper())`.
        model_class: the tuner.

    Raises:
        KeyError: PEFT already has another method of that name.
    """
    member = peft_type(name.upper())
    known: Any = PEFT_TYPE_TO_CONFIG_MAPPING.get(member)
    if known is None:
        register_peft_method(name=name, config_cls=config_class, model_cls=model_class)
    elif known is not config_class or PEFT_TYPE_TO_TUNER_MAPPING[member] is not model_class:
        raise KeyError(f"PEFT already has a method {name!r}, of {known.__module__}; it cannot be qpeft's as well.")


def config_classes() -> dict[str, type[PeftConfig]]:
    """Every method that PEFT knows, ours included: lower-case name to config class."""
    return {str(known.value).lower(): classes for known, classes in PEFT_TYPE_TO_CONFIG_MAPPING.items()}


def changes_layers(config: PeftConfig) -> bool:
    """Whether the method wraps layers of a model, rather than put a prompt before the text."""
    tuner = PEFT_TYPE_TO_TUNER_MAPPING.get(config.peft_type)
    return tuner is not None and issubclass(tuner, BaseTuner)


def outside_adapters(model: nn.Module) -> list[str]:
    """Names of the modules of a model that are not inside a layer of some adapter."""
    names = [name for name, _ in model.named_modules() if name]
    inside = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, BaseTunerLayer))
    return [name for name in names if not name.startswith(inside)]


def targeted_modules(model: nn.Module, config: PeftConfig) -> list[str]:
    """Names of the modules that PEFT would adapt; none for a method without targets of its own or usual ones."""
    settled = copy.copy(config)
    if getattr(settled, "target_modules", None) is None:
        usual = getattr(PEFT_TYPE_TO_TUNER_MAPPING.get(config.peft_type), "target_module_mapping", {})
        settled.target_modules = usual.get(BaseTuner.get_model_config(model).get("model_type"))
        if settled.target_modules is None:
            return []
    names = outside_adapters(model)
    if str(settled.target_modules).lower() == INCLUDE_LINEAR_LAYERS_SHORTHAND:
        settled = _maybe_include_all_linear_layers(settled, model)
        # PEFT compares every name with the end of every other, which takes minutes where experts are layers each.
        names = [name for name in names if name in settled.target_modules]
    return [name for name in names if check_target_module_exists(settled, name)]


def quantization_backend(layer: nn.Module, **options: Any) -> QuantizationBackend | None:
    """What reads and writes the weight of a quantized layer (bitsandbytes, torchao, HQQ, ...); None for a plain one.

    Args:
        layer: below all adapters.
        options: `get_quantization_kwargs` of the model.
    """
    try:
        return resolve_quantization_backend(layer, **options)
    except ValueError as error:
        # torchao tensors of a model that was not loaded with its quantization config: nobody can say how to make them
        # again, but they multiply like any other.
        if "get_apply_tensor_subclass" not in str(error):
            raise
        return ForwardOnlyQuantizationBackend("torchao without quantization_config")


def unpack(layer: nn.Module) -> None:
    """Put a 4-bit weight of bitsandbytes back into the order that its own dequantization reads.

    On CPUs with AVX512-BF16 the first forward pass in evaluation mode reorders it for speed, and PEFT would then read
    other numbers than the layer multiplies with.
    """
    state = getattr(getattr(layer, "weight", None), "quant_state", None)
    if getattr(state, "packing_format_for_cpu", False):
        layer.state_dict()  # saves in the common order, and leaves the layer in it

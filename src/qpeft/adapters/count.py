"""What an adapter would add to a model, counted without weights."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from peft import PeftConfig
from torch import nn

from qpeft.adapters.bridge import BaseTunerLayer
from qpeft.adapters.build import add_adapter


@dataclass(frozen=True)
class LayerKind:
    """Adapted layers that share name, shape and number of trainable parameters; `count` of them."""

    name: str
    in_features: int
    out_features: int
    parameters: int
    count: int


def count_layers(skeleton: nn.Module, config: PeftConfig) -> list[LayerKind]:
    """The kinds of layers that `config` adapts in a model on the meta device, which is changed by it.

    Raises: AdapterError if the config does not fit the model.
    """
    model = add_adapter(skeleton, config, low_cpu_mem_usage=True)
    kinds = Counter(
        (
            name.rsplit(".", 1)[-1],
            module.in_features,
            module.out_features,
            sum(weight.numel() for weight in module.parameters() if weight.requires_grad),
        )
        for name, module in model.named_modules()
        if isinstance(module, BaseTunerLayer)
    )
    return [LayerKind(*kind, count) for kind, count in kinds.items()]


def lora_parameters(kind: LayerKind, rank: int) -> int:
    """Parameters of LoRA of this rank on one such layer."""
    return rank * (kind.in_features + kind.out_features)

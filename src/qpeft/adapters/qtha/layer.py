"""A linear layer with QTHA adapters beside it."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from qpeft.adapters.bridge import BaseTunerLayer
from qpeft.adapters.qtha.branch import QthaBranch
from qpeft.adapters.qtha.config import QthaConfig
from qpeft.errors import AdapterError, NotMergeableError


class QthaLayer(nn.Module, BaseTunerLayer):
    """A linear layer plus the updates of its active QTHA adapters.

        y = base(x) + sum over active adapters of branch(x)

    Shapes: x (..., in_features), y (..., out_features) in the type that the base layer returns.
    Raises: AdapterError if the base layer is not linear; NotMergeableError from `merge`: a circuit is not linear in x.
    """

    adapter_layer_names = ("qtha_branch",)

    # Inherited from BaseTunerLayer, which has no type information.
    active_adapters: list[str]
    disable_adapters: bool
    set_adapter: Callable[..., None]
    _cast_input_dtype: Callable[[Tensor, torch.dtype], Tensor]
    _move_adapter_to_device_of_base_layer: Callable[[str], None]

    def __init__(self, base_layer: nn.Module, name: str, adapter_name: str) -> None:
        super().__init__()
        layer = require_linear(base_layer, name)
        self.base_layer = base_layer
        self.name = name
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.qtha_branch = nn.ModuleDict()
        self._active_adapter: str | list[str] = adapter_name
        self._disable_adapters = False
        self.merged_adapters: list[str] = []

    def update_layer(self, adapter_name: str, config: QthaConfig, *, rank: int, alpha: float) -> None:
        """Add an adapter, initialised so that it changes nothing yet."""
        branch = QthaBranch(config, self.in_features, self.out_features, rank=rank, scaling=alpha / rank)
        branch.initialize(config, _generator(config.init_seed, self.name))
        self.qtha_branch[adapter_name] = branch
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The base layer's output plus the active updates."""
        result: Tensor = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters:
            return result
        for adapter_name in self.active_adapters:
            if adapter_name in self.qtha_branch:
                branch = self.qtha_branch[adapter_name]
                assert isinstance(branch, QthaBranch)
                update: Tensor = branch(self._cast_input_dtype(x, branch.dtype))
                result = result + update.to(result.dtype)
        return result

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:  # noqa: ARG002
        """Raises: NotMergeableError always; the update depends on the input."""
        raise NotMergeableError(
            "A QTHA update runs through a circuit that depends on the input, so no weight matrix equals it and it "
            "cannot be merged. Keep the adapter beside the model: PeftModel.from_pretrained(model, folder)."
        )

    def unmerge(self) -> None:
        """Nothing to do: QTHA is never merged."""


def require_linear(module: nn.Module, name: str) -> nn.Linear:
    """The linear layer that `module` is, below any adapters on it. Raises: AdapterError if it is none."""
    layer = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
    if not isinstance(layer, nn.Linear):
        raise AdapterError(
            f"QTHA adapts linear layers (torch.nn.Linear); {name!r} is a {type(layer).__name__}. "
            "Leave it out of target_modules, or name it in exclude_modules."
        )
    return layer


def _generator(seed: int | None, name: str) -> torch.Generator | None:
    """Random numbers for one layer, the same whatever was drawn or adapted before it; None for torch's global ones."""
    if seed is None:
        return None
    return torch.Generator().manual_seed(zlib.crc32(f"{seed}:{name}".encode()))

"""A linear layer with adapters of one method beside it, written once for all methods."""

from __future__ import annotations

import zlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from qpeft.adapters.base.branch import AbstractBranch
from qpeft.adapters.base.config import AdapterConfig
from qpeft.adapters.bridge import BaseTunerLayer, QuantizationBackend, quantization_backend
from qpeft.errors import AdapterError


class AbstractAdapterLayer(nn.Module, BaseTunerLayer):
    """A linear layer plus the updates of its active adapters.

        y = base(x) + sum over active adapters of branch(x)

    Shapes: x (..., in_features), y (..., out_features) in the type that the base layer returns.
    A method makes its branches; `class TheirLayer(AbstractAdapterLayer, method="theirs")` keeps them in a dictionary
    called theirs_branch. Within `mixed`, every row of x meets the adapter that is named for it, in place of the active
    ones.
    Raises: AdapterError if the base layer is not linear, for saved weights of another size, and for a mixed batch whose
    rows are not those that the names are for.
    """

    adapter_layer_names: ClassVar[tuple[str]]

    def __init_subclass__(cls, *, method: str | None = None) -> None:
        super().__init_subclass__()
        if method is not None:
            cls.adapter_layer_names = (f"{method}_branch",)

    # Inherited from BaseTunerLayer, which has no type information.
    active_adapters: list[str]
    disable_adapters: bool
    merged: bool
    quantization_backend: QuantizationBackend | None
    get_base_layer: Callable[[], Any]
    get_base_weight: Callable[[], Tensor]
    set_base_weight: Callable[[Tensor], None]
    _cast_input_dtype: Callable[[Tensor, torch.dtype], Tensor]
    _move_adapter_to_device_of_base_layer: Callable[[str], None]

    def __init__(self, base_layer: nn.Module, name: str, adapter_name: str, **quantization: Any) -> None:
        super().__init__()
        layer = require_linear(base_layer, name)
        self.base_layer = base_layer
        self.name = name
        self.in_features: int = layer.in_features
        self.out_features: int = layer.out_features
        self.add_module(self.adapter_layer_names[0], nn.ModuleDict().train(base_layer.training))
        self._active_adapter: str | list[str] = adapter_name
        self._disable_adapters = False
        self._were_trainable: dict[str, bool] = {}
        self.training = base_layer.training
        self.merged_adapters: list[str] = []
        self.quantization_backend = quantization_backend(layer, **quantization)
        self._adapter_of_row: Sequence[str] | None = None
        self._dimensions_of_rows = 2

    @abstractmethod
    def make_branch(self, config: Any) -> AbstractBranch:
        """A branch of this config for this layer, initialised so that it changes nothing yet."""

    @property
    def branches(self) -> nn.ModuleDict:
        """Branches by the names of their adapters."""
        branches: nn.ModuleDict = getattr(self, self.adapter_layer_names[0])
        return branches

    def branch(self, adapter_name: str) -> AbstractBranch:
        """The branch of one adapter of this layer."""
        branch = self.branches[adapter_name]
        assert isinstance(branch, AbstractBranch)
        return branch

    def update_layer(self, adapter_name: str, config: AdapterConfig) -> None:
        """Add an adapter, initialised so that it changes nothing yet."""
        # New modules are in training mode, also on a model in evaluation mode, where they would drop inputs.
        self.branches[adapter_name] = self.make_branch(config).train(self.base_layer.training)
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def set_adapter(self, adapter_names: str | list[str], inference_mode: bool = False) -> None:
        """As PEFT's: the named adapters become the active ones, and trainable unless in inference mode."""
        super().set_adapter(adapter_names, inference_mode=inference_mode)
        self._were_trainable.clear()

    def enable_adapters(self, enabled: bool) -> None:
        """As PEFT's, but weights that were frozen when adapters were switched off stay so when they are on again."""
        if not enabled and not self.disable_adapters:
            self._were_trainable = {name: weight.requires_grad for name, weight in self.branches.named_parameters()}
            self.branches.requires_grad_(False)
        elif enabled and self.disable_adapters:
            for name, weight in self.branches.named_parameters():
                weight.requires_grad_(weight.requires_grad or self._were_trainable.get(name, False))
        self._disable_adapters = not enabled

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The base layer's output plus the active updates, or those of each row of a mixed batch."""
        result: Tensor = self.base_layer(x, *args, **kwargs)
        if self.quantization_backend is not None:
            result = self.quantization_backend.maybe_clone_base_result(result)
        if self.disable_adapters:
            return result
        if self._adapter_of_row is not None:
            return self._add_to_rows(result, x, self._adapter_of_row)
        branches = self.branches
        for adapter_name in self.active_adapters:
            if adapter_name in branches:
                result = result + self.update(adapter_name, x).to(result.dtype)
        return result

    @contextmanager
    def mixed(self, adapter_of_row: Sequence[str], *, dimensions: int = 2) -> Iterator[None]:
        """A context in which every row of x goes through the adapter of that name; names of none mean no adapter.

        `dimensions`: that x has at least, if its rows are those of the batch.
        """
        self._adapter_of_row, self._dimensions_of_rows = adapter_of_row, dimensions
        try:
            yield
        finally:
            self._adapter_of_row = None

    def update(self, adapter_name: str, x: Tensor) -> Tensor:
        """What one adapter adds for inputs x, in the type of its weights."""
        branch = self.branch(adapter_name)
        update: Tensor = branch(self._cast_input_dtype(x, branch.dtype))
        return update

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *args: Any) -> None:
        # torch's own error names weights and shapes, and not what that means.
        place = f"{prefix}{self.adapter_layer_names[0]}"
        for name, weight in (*self.branches.named_parameters(place), *self.branches.named_buffers(place)):
            stored = state_dict.get(name)
            if stored is not None and stored.shape != weight.shape:
                raise AdapterError(
                    f"The adapter's weights are for another model, or for other options: at {self.name!r}, which takes "
                    f"{self.in_features} features and gives {self.out_features}, {name.removeprefix(prefix)} is "
                    f"{tuple(stored.shape)} in the file and {tuple(weight.shape)} here. Load it onto the base model "
                    "that it was trained on, with the adapter_config.json that it was saved with."
                )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _add_to_rows(self, result: Tensor, x: Tensor, adapter_of_row: Sequence[str]) -> Tensor:
        if x.ndim < self._dimensions_of_rows:
            raise AdapterError(
                f"At {self.name!r} the model gives tokens of all rows together, {tuple(x.shape)}, so which adapter is "
                "for which is not known. Leave the layer out of target_modules, or run one batch per adapter."
            )
        if len(x) != len(adapter_of_row):
            raise AdapterError(
                f"adapter_names holds {len(adapter_of_row)} names for {len(x)} rows at {self.name!r}; it needs one a "
                "row. Beam search multiplies rows: hand num_beams to generate as an argument."
            )
        result = result.clone()
        for name in sorted({*adapter_of_row} & {*self.branches.keys()}):
            rows = torch.tensor([i for i, of_row in enumerate(adapter_of_row) if of_row == name], device=x.device)
            result.index_add_(0, rows, self.update(name, x[rows]).to(result.dtype))
        return result


def require_linear(module: nn.Module, name: str) -> Any:
    """The linear layer that `module` is, quantized or not, below any adapters on it; it has in_features, out_features.

    Raises: AdapterError if it is none.
    """
    layer: nn.Module = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
    if not isinstance(layer, nn.Linear) and getattr(quantization_backend(layer), "layer_type", None) != "linear":
        inside = [f"{name}.{inner}" for inner, child in layer.named_modules() if isinstance(child, nn.Linear)]
        hint = f" Inside it {inside[0]!r} is a linear layer." if inside else ""
        raise AdapterError(
            f"qpeft adapts linear layers (torch.nn.Linear); {name!r} is a {type(layer).__name__}. "
            f"Leave it out of target_modules, or name it in exclude_modules.{hint}"
        )
    return layer


def generator(seed: int | None, name: str) -> torch.Generator | None:
    """Random numbers for one layer, the same whatever was drawn or adapted before it; None for torch's global ones."""
    if seed is None:
        return None
    return torch.Generator().manual_seed(zlib.crc32(f"{seed}:{name}".encode()))

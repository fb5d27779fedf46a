"""Methods whose update is a matrix: merged into the base weight, exported as LoRA, mixed within a batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qpeft.adapters.base.branch import AbstractMatrixBranch
from qpeft.adapters.base.layer import AbstractAdapterLayer, require_linear
from qpeft.adapters.base.model import AbstractAdapterModel
from qpeft.adapters.bridge import check_adapters_to_merge
from qpeft.errors import AdapterError, NotMergeableError

BASE = "__base__"
"""In `adapter_names`, PEFT's word for a row without an adapter."""


class AbstractMatrixLayer(AbstractAdapterLayer):
    """A linear layer plus matrices.

        y = base(x) + sum over active adapters of x matrix^T

    Raises: NotMergeableError from `merge` if the base weight is quantized or sharded; AdapterError from
    `merge(safe_merge=True)` if the merged weight would not be finite, and for rows of a mixed batch that do not fit.
    """

    def __init__(self, base_layer: nn.Module, name: str, adapter_name: str) -> None:
        super().__init__(base_layer, name, adapter_name)
        self._adapter_of_row: Sequence[str] | None = None

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The base layer's output plus the active updates, or those of each row of a mixed batch."""
        if self.merged and self.disable_adapters:
            self.unmerge()
        if self._adapter_of_row is not None:
            return self._mixed(self._adapter_of_row, x, *args, **kwargs)
        if self.merged:
            merged: Tensor = self.base_layer(x, *args, **kwargs)
            return merged
        return super().forward(x, *args, **kwargs)

    def get_delta_weight(self, adapter_name: str) -> Float[Tensor, "out_features in_features"]:
        """What one adapter adds to the base weight, in the type of the adapter's weights."""
        branch = self.branch(adapter_name)
        assert isinstance(branch, AbstractMatrixBranch)
        return branch.matrix()

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:  # noqa: ARG002
        """True: a matrix is a LoRA, exactly so at its own rank or above."""
        return True

    @torch.no_grad()
    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add the matrices of the active adapters, or of those named, to the base weight.

        Raises: NotMergeableError for a quantized or sharded base weight; AdapterError with safe_merge for a sum that
        is not finite. The weight is then as it was.
        """
        names = [name for name in check_adapters_to_merge(self, adapter_names) if name in self.branches]
        if not names:
            return
        merged = self._plus(names, sign=1)
        if safe_merge and not merged.isfinite().all():
            raise AdapterError(
                f"Merging {', '.join(names)} into {self.name!r} gives a weight that is not finite; it was not merged. "
                "The adapter's weights have overflowed or hold NaN: take an earlier checkpoint."
            )
        self._linear().weight.data = merged
        self.merged_adapters.extend(names)

    @torch.no_grad()
    def unmerge(self) -> None:
        """Subtract what was merged: the base weight returns up to the rounding of its type."""
        if self.merged:
            self._linear().weight.data = self._plus(self.merged_adapters, sign=-1)
            self.merged_adapters.clear()

    @contextmanager
    def mixed(self, adapter_of_row: Sequence[str]) -> Iterator[None]:
        """A context in which every row of x goes through the adapter of that name; `BASE` for none."""
        self._adapter_of_row = adapter_of_row
        try:
            yield
        finally:
            self._adapter_of_row = None

    def _plus(self, names: Sequence[str], *, sign: int) -> Tensor:
        weight = self._linear().weight.data
        if type(weight) is not Tensor or not weight.is_floating_point():
            raise NotMergeableError(
                f"The base weight of {self.name!r} is a {type(weight).__name__} of {weight.dtype}; qpeft merges into "
                "plain floating-point weights only. Load the base model without quantization, in one piece, then merge."
            )
        total = sum(self.get_delta_weight(name).to(torch.promote_types(weight.dtype, torch.float32)) for name in names)
        # Rounded once, after all have been added.
        return (weight + sign * total).to(weight.dtype)

    def _linear(self) -> nn.Linear:
        return require_linear(self.base_layer, self.name)

    def _mixed(self, adapter_of_row: Sequence[str], x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if len(x) != len(adapter_of_row):
            raise AdapterError(
                f"adapter_names holds {len(adapter_of_row)} names for {len(x)} rows at {self.name!r}; it needs one a "
                "row. Beam search multiplies rows: repeat each name num_beams times."
            )
        result: Tensor = self.base_layer(x, *args, **kwargs)
        result = result.clone()
        for name in sorted({*adapter_of_row} & {*self.branches.keys()}):
            rows = torch.tensor([i for i, of_row in enumerate(adapter_of_row) if of_row == name], device=x.device)
            result.index_add_(0, rows, self.update(name, x[rows]).to(result.dtype))
        return result


class AbstractMatrixModel(AbstractAdapterModel):
    """A tuner of such layers, with mixed batches: `model(tokens, adapter_names=["first", "__base__", "second"])`.

    Raises: AdapterError for `adapter_names` while training, while merged, or with a name that no layer knows.
    """

    def _enable_peft_forward_hooks(self, *_: Any, **kwargs: Any) -> AbstractContextManager[None]:
        return self._mixed(kwargs.get("adapter_names"))

    @contextmanager
    def _mixed(self, adapter_names: Sequence[str] | None) -> Iterator[None]:
        with ExitStack() as contexts:
            if adapter_names is not None:
                layers = [module for module in self.modules() if isinstance(module, AbstractMatrixLayer)]
                self._check_mixed(adapter_names, layers)
                for layer in layers:
                    contexts.enter_context(layer.mixed(adapter_names))
            yield

    def _check_mixed(self, adapter_names: Sequence[str], layers: Sequence[AbstractMatrixLayer]) -> None:
        if self.training:
            raise AdapterError("adapter_names is for inference; call model.eval() first, or train one adapter a batch.")
        if any(layer.merged for layer in layers):
            raise AdapterError("adapter_names needs adapters beside the weights; call model.unmerge_adapter() first.")
        known = {name for layer in layers for name in layer.branches}
        if unknown := sorted({*adapter_names} - known - {BASE}):
            raise AdapterError(
                f"adapter_names holds {', '.join(map(repr, unknown))}; the model has {', '.join(sorted(known))}, and "
                f"{BASE!r} for no adapter."
            )

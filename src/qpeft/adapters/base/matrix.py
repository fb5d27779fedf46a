"""Methods whose update is a matrix: merged into the base weight, plain or quantized, and exported as LoRA."""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qpeft.adapters.base.branch import AbstractMatrixBranch, FactoredMatrixBranch
from qpeft.adapters.base.config import RankedConfig
from qpeft.adapters.base.factors import AbstractFactor, AbstractRandomFactor
from qpeft.adapters.base.layer import AbstractAdapterLayer, generator
from qpeft.adapters.base.model import AbstractAdapterModel
from qpeft.adapters.bridge import AuxiliaryTrainingWrapper, check_adapters_to_merge, unpack
from qpeft.errors import AdapterError, NotMergeableError


class AbstractMatrixLayer(AbstractAdapterLayer):
    """A linear layer plus matrices.

        y = base(x) + sum over active adapters of x matrix^T

    Raises: NotMergeableError from `merge` if the base weight is sharded, or of a quantization that PEFT cannot write;
    AdapterError from `merge(safe_merge=True)` if the merged weight would not be finite.

    Attributes:
        requantization: what the last merge or unmerge lost where the base weight is quantized.
    """

    requantization: Requantization | None = None

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The base layer's output plus the active updates, or those of each row of a mixed batch."""
        if self.merged and self.disable_adapters:
            self.unmerge()
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

        Quantized weights are dequantized, added to and quantized again, which rounds what was added.

        Raises: NotMergeableError for a base weight that cannot be written; AdapterError with safe_merge for a sum that
        is not finite. The weight is then as it was.
        """
        names = [name for name in check_adapters_to_merge(self, adapter_names) if name in self.branches]
        if not names:
            return
        self.check_mergeable()
        update = self._sum(names)
        merged = self._plus(update)
        if safe_merge and not merged.isfinite().all():
            # In PEFT's own words first, which programs look for.
            raise AdapterError(
                f"NaNs detected in the merged weights. The adapter {', '.join(names)} seems to be broken: its weights "
                f"have overflowed or hold NaN. Nothing was merged into {self.name!r}. Take an earlier checkpoint."
            )
        self._store(merged, update)
        self.merged_adapters.extend(names)

    @torch.no_grad()
    def unmerge(self) -> None:
        """Subtract what was merged: the base weight returns up to the rounding of its type, or of its quantization."""
        if self.merged:
            update = self._sum(self.merged_adapters)
            self._store(self._plus(-update), update)
            self.merged_adapters.clear()

    def check_mergeable(self) -> None:
        """Raises: NotMergeableError for a base weight that cannot be written."""
        if self.quantization_backend is None:
            weight = self.get_base_layer().weight.data
            if type(weight) is Tensor and weight.is_floating_point():
                return
            kind = f"a {type(weight).__name__} of {weight.dtype}"
        elif self.quantization_backend.supports_merge:
            return
        else:
            kind = f"quantized ({self.quantization_backend.backend_name}) in a way that PEFT cannot write back"
        raise NotMergeableError(
            f"The base weight of {self.name!r} is {kind}, so nothing can be merged into it. Load the base model "
            "without quantization and in one piece, then merge."
        )

    def _sum(self, names: Sequence[str]) -> Tensor:
        matrices = [self.get_delta_weight(name) for name in names]
        return torch.stack([matrix.to(torch.promote_types(matrix.dtype, torch.float32)) for matrix in matrices]).sum(0)

    def _plus(self, update: Tensor) -> Tensor:
        unpack(self.get_base_layer())
        weight = self.get_base_weight()
        # Rounded once, after all have been added.
        return (weight + update).to(weight.dtype)

    def _store(self, weight: Tensor, update: Tensor) -> None:
        self.set_base_weight(weight)
        if self.quantization_backend is not None:
            self.requantization = Requantization.between(weight, self.get_base_weight(), update)


class AbstractMatrixModel(AbstractAdapterModel):
    """A tuner of such layers. What merging into quantized weights costs is logged, once for all layers.

    `merge_adapter` and `merge_and_unload` add the adapters that are active, all of them, or those named.
    Raises: AdapterError for mixed batches that cannot be; NotMergeableError before any layer is merged if one cannot,
    also since another module has the same weight.
    """

    def merge_adapter(self, adapter_names: list[str] | None = None, safe_merge: bool = False) -> None:
        """As PEFT's: the base weights then hold the updates, which are kept beside them."""
        self._check_not_shared(adapter_names)
        with self._saying("Merged into"):
            super().merge_adapter(adapter_names=adapter_names, safe_merge=safe_merge)

    def unmerge_adapter(self) -> None:
        """As PEFT's: what was merged is subtracted."""
        with self._saying("Unmerged from"):
            super().unmerge_adapter()

    def merge_and_unload(
        self, progressbar: bool = False, safe_merge: bool = False, adapter_names: list[str] | None = None
    ) -> nn.Module:
        """As PEFT's: the base model, with the updates in its weights and no adapter.

        Args:
            progressbar: whether PEFT shows one.
            safe_merge: whether the merged weights are looked at for NaN and infinities.
            adapter_names: that are merged; None for the active ones.
        """
        self._check_not_shared(adapter_names)
        with self._saying("Merged into"):
            merged: nn.Module = super().merge_and_unload(progressbar, safe_merge, adapter_names)
        return merged

    @contextmanager
    def _saying(self, verb: str) -> Iterator[None]:
        layers = self._layers()
        before = [layer.requantization for layer in layers]
        yield
        now = [layer.requantization for layer in layers]
        log_requantization(verb, [lost for lost, earlier in zip(now, before, strict=True) if lost is not earlier])

    def _check_merge_allowed(self) -> None:
        super()._check_merge_allowed()
        for layer in self._layers():
            layer.check_mergeable()

    def _check_not_shared(self, adapter_names: list[str] | None) -> None:
        holders: dict[int, list[str]] = {}
        for parent_name, parent in self.model.named_modules():
            for child_name, child in parent._modules.items():
                # The original of a module that is trained in full is not used.
                if child is not None and not (
                    isinstance(parent, AuxiliaryTrainingWrapper) and "original" in child_name
                ):
                    for weight in child._parameters.values():
                        holders.setdefault(id(weight), []).append(f"{parent_name}.{child_name}".lstrip("."))
        for layer in self._layers():
            names = holders[id(layer.get_base_layer().weight)]
            merging = {*(adapter_names or layer.active_adapters)} & {*layer.branches} - {*layer.merged_adapters}
            if merging and (others := [name for name in names if not name.startswith(f"{layer.name}.")]):
                raise NotMergeableError(
                    f"The base weight of {layer.name!r} is also that of {others[0].removesuffix('.base_layer')!r}, "
                    "which a merge would change too. `qpeft merge` writes a model in which each has its own. Or give "
                    f"the base model such weights before its adapter is loaded: base.{layer.name}.weight = "
                    f"torch.nn.Parameter(base.{layer.name}.weight.detach().clone()), and for embeddings also "
                    "base.config.tie_word_embeddings = False."
                )

    def _layers(self) -> list[AbstractMatrixLayer]:
        return [module for module in self.modules() if isinstance(module, AbstractMatrixLayer)]


# What a quantized weight loses of an update that is merged into it, or taken out again.


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Requantization:
    """Frobenius norms of one layer: of what rounding moved the weight by, of the weight, and of the update."""

    error: float
    weight: float
    update: float

    @classmethod
    def between(cls, wanted: Tensor, stored: Tensor, update: Tensor) -> Requantization:
        """From the weight that was to be stored, the one that is, and the update that was added; of one shape.

        Args:
            wanted: the weight that should be stored.
            stored: the weight that its quantization made of it.
            update: what had been added.
        """
        wanted, stored = wanted.float(), stored.float()
        norms = ((stored - wanted).norm(), wanted.norm(), update.float().norm())
        return cls(*(norm.item() for norm in norms))


def log_requantization(verb: str, layers: Iterable[Requantization | None]) -> None:
    """Warn once about all quantized layers, if there are any; None stands for a layer that is not quantized."""
    found = [layer for layer in layers if layer is not None]
    if not found:
        return
    error, weight, update = (
        math.hypot(*norms)
        for norms in zip(*((layer.error, layer.weight, layer.update) for layer in found), strict=True)
    )
    logger.warning(
        "%s %d quantized weights; the requantization error is %.3g of the weights and %.3g of the updates (Frobenius "
        "norms over all of them). To lose nothing, merge into the base model without quantization.",
        verb,
        len(found),
        error / weight if weight else math.nan,
        error / update if update else math.nan,
    )


# Methods whose update is two factors of a rank, as LoRA's A and B are: made and started in the same way.


class AbstractRankedBranch(FactoredMatrixBranch):
    """Two factors that a method makes for a rank and a width each.

    update = scaling * x down^T up

    Shapes: x (..., in_features); down (rank, in_features); up (rank, out_features).
    """

    def __init__(self, config: Any, in_features: int, out_features: int, *, rank: int, scaling: float) -> None:
        down, up = (self.make_factor(config, rank, width) for width in (in_features, out_features))
        super().__init__(down, up, scaling=scaling, dropout=config.dropout)
        self.rank, self.in_features = rank, in_features

    @staticmethod
    @abstractmethod
    def make_factor(config: Any, rank: int, width: int) -> AbstractFactor:
        """A factor (rank, width) of this config, not yet initialised.

        Args:
            config: of the method.
            rank: narrow side.
            width: wide side.
        """

    @abstractmethod
    def initialize(self, generator: torch.Generator | None) -> None:
        """First values, with which the update is zero. Does nothing on the meta device."""


class AbstractLoraLikeBranch(AbstractRankedBranch):
    """Such factors that start as LoRA's do: `down` at random, `up` at zero."""

    down: AbstractRandomFactor
    up: AbstractRandomFactor

    @torch.no_grad()
    def initialize(self, generator: torch.Generator | None) -> None:
        """Random factors, then `up` zero: the update starts at zero. Does nothing on the meta device.

        Inputs of unit variance give down x the variance 1/3, as in LoRA.
        """
        if next(self.parameters()).is_meta:
            return
        self.down.initialize(variance=1 / (3 * self.in_features), generator=generator)
        self.up.initialize(variance=1 / self.rank, generator=generator)
        self.up.zero()


class AbstractRankedLayer(AbstractMatrixLayer):
    """A linear layer with such branches beside it, of the class that a method names."""

    branch_class: ClassVar[type[AbstractRankedBranch]]

    def make_branch(self, config: RankedConfig) -> AbstractRankedBranch:
        """A branch of the rank and alpha that the config's patterns give this layer; its update is zero."""
        rank, scaling = config.rank_of(self.name), config.scaling_of(self.name)
        branch = self.branch_class(config, self.in_features, self.out_features, rank=rank, scaling=scaling)
        branch.initialize(generator(config.init_seed, self.name))
        return branch

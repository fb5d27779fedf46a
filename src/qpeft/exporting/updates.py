"""Every adapted layer's update as a linear map: its own matrix, or one fitted to it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor, nn

from qpeft.adapters.base import AbstractAdapterLayer, FactoredBranch, require_linear
from qpeft.adapters.bridge import BaseTunerLayer, LoraLayer
from qpeft.data import Encoded
from qpeft.errors import AdapterError, DataError, NotMergeableError
from qpeft.exporting.low_rank import (
    Constant,
    LinearFit,
    LowRank,
    collect_moments,
    cut_matrix,
    cut_product,
    fit_bottleneck,
    linear_bottleneck,
)
from qpeft.runs.bars import OnProgress, to_nobody

DEFAULT_RANK = 64
"""Of an exported matrix without a small rank of its own, where the user names none."""


OUT_OF_REACH = ("lora_bias", "trainable_token_indices", "target_parameters", "layer_replication")
"""Options of PEFT's configs that change more than linear layers by matrices."""

PLAIN_INITS = (True, False, "gaussian", "orthogonal", "eva")
"""LoRA's ways to start that leave the base weights alone; others, such as PiSSA, take the start out of them."""


@dataclass(frozen=True)
class LinearUpdate:
    """update = scaling factors.up factors.down x + constant.

    Attributes:
        factors: of the matrix; None for the layer's own matrix as it is.
        scaling: 1 but for a LoRA's own factors, which stay as they are.
        constant: (out_features,), where the fit keeps one and the layer has a place for it; else None.
        fit: of the bottleneck on calibration text; None for an update that is a matrix.
    """

    factors: LowRank | None
    scaling: float = 1.0
    constant: Float[Tensor, " out_features"] | None = None
    fit: LinearFit | None = None


def adapted_layers(model: PeftModel) -> dict[str, BaseTunerLayer]:
    """Return the layers of the one active adapter, by their names in the base model.

    Raises: AdapterError if several adapters are active or one is merged, for one that does more than add to linear
        layers, and for layers that are not linear or hold weights that are not finite.
    """
    adapter = active_adapter(model)
    config = model.peft_config[adapter]
    given = [name for name in OUT_OF_REACH if getattr(config, name, None)]
    given += ["bias"] if getattr(config, "bias", "none") != "none" else []
    if given:
        # PEFT knows its own methods, and nothing of ours.
        ours = type(config).__module__.startswith("qpeft.")
        otherwise = " PEFT loads its folder as it is, and its merge_and_unload() merges what can be merged."
        raise AdapterError(
            f"The adapter was trained with {', '.join(given)}, which changes more than linear layers by matrices; "
            f"qpeft exports and merges only those.{'' if ours else otherwise}"
        )
    if (init := getattr(config, "init_lora_weights", True)) not in PLAIN_INITS:
        raise AdapterError(
            f"The adapter started with init_lora_weights={init!r}, which changes the base weights: its matrices belong "
            "to a base model that nobody else has. PEFT's own save_pretrained and merge_and_unload know how to undo it."
        )
    modules = dict(model.get_base_model().named_modules())
    tuners = {name: module for name, module in modules.items() if isinstance(module, BaseTunerLayer)}
    # Some methods of PEFT hold tuner layers inside others; only the outermost stands for a layer of the base model.
    inside = tuple(f"{name}." for name in tuners)
    layers = {
        name: layer
        for name, layer in tuners.items()
        if not name.startswith(inside) and any(adapter in getattr(layer, kind) for kind in layer.adapter_layer_names)
    }
    if not layers:
        raise AdapterError(f"The adapter {adapter!r} changes no linear layer, so there is nothing to export or merge.")
    for name, layer in layers.items():
        require_linear(layer, name)
        if layer.merged:
            raise AdapterError(f"An adapter is merged into {name!r}; call model.unmerge_adapter() first.")
        if not all(weight.isfinite().all() for weight in layer.parameters()):
            raise AdapterError(f"Weights of {name!r} have overflowed or hold NaN; take an earlier checkpoint.")
    return layers


def active_adapter(model: PeftModel) -> str:
    """Return the name of the one active adapter. Raises: AdapterError if there are several or none."""
    names = list(model.active_adapters)
    if len(names) != 1:
        raise AdapterError(
            f"{len(names)} adapters are active ({', '.join(names)}); one is exported or merged at a time. "
            "Choose it with model.set_adapter(name)."
        )
    return str(names[0])


@torch.no_grad()
def linear_updates(
    model: PeftModel,
    layers: Mapping[str, BaseTunerLayer],
    calibration: Sequence[Encoded],
    *,
    rank: int | None = None,
    whole: bool = False,
    constants: Mapping[str, Constant] | None = None,
    on_progress: OnProgress = to_nobody,
) -> dict[str, LinearUpdate]:
    """Return the update of each layer as a linear map.

    Args:
        model: with its adapter.
        layers: of `adapted_layers`.
        calibration: text on which updates that depend on their input are fitted; others need none.
        rank: most that each may have; None for its own, or `DEFAULT_RANK` where that is higher.
        whole: leave the matrices of methods that have one as they are, whatever their rank.
        constants: what becomes of the constants of fits, by layer; `absorb` for those not named.
        on_progress: told how many examples have been read, then how many layers are done.

    Raises: AdapterError for an untrained adapter; DataError if calibration text is needed and there is too little;
        NotMergeableError for a method that is no matrix and has no bottleneck to fit.
    """
    adapter = active_adapter(model)
    branches = {
        name: factored
        for name, layer in layers.items()
        if isinstance(layer, AbstractAdapterLayer) and isinstance(factored := layer.branch(adapter), FactoredBranch)
    }
    fits = {name: linear_bottleneck(branch) for name, branch in branches.items()}
    curved = {name: branches[name] for name, fit in fits.items() if fit is None}
    if curved and not calibration:
        raise DataError(
            f"The updates of {len(curved)} layers depend on their input, and a linear map is fitted to them on text, "
            "but there is no calibration text. Give some, best what the adapter was trained on."
        )
    moments = collect_moments(model, curved, calibration, on_progress=on_progress) if curved else {}
    updates = {}
    for done, (name, layer) in enumerate(layers.items()):
        on_progress("linear maps", done, len(layers))
        if (own := _lora_factors(layer, adapter)) is not None:
            cut = cut_product(own.down, own.up, rank)
            # Left at its own rank it is copied bit for bit, in the type that it was trained in.
            updates[name] = LinearUpdate(cut if cut.rank == own.rank else _rounded(cut), layer.scaling[adapter])
        elif (branch := branches.get(name)) is None:
            matrix = delta_weight(layer, name, adapter)
            as_it_is = whole and bool(matrix.any())
            factors = None if as_it_is else _rounded(cut_matrix(matrix, rank, at_most=DEFAULT_RANK))
            updates[name] = LinearUpdate(factors)
        else:
            constant = (constants or {}).get(name, "absorb")
            fit = fits[name] or fit_bottleneck(moments[name], branch.effective_factors()[1], constant)
            down, up = (factor.double().cpu() for factor in branch.effective_factors())
            # The map goes into the left factor, so that both stay as thin as the bottleneck.
            cut = cut_product(down, branch.scaling * up.T @ fit.matrix, rank)
            added = (branch.scaling * up.T @ fit.constant).float() if fit.constant.any() else None
            updates[name] = LinearUpdate(_rounded(cut), constant=added, fit=fit if fit.tokens else None)
    on_progress("linear maps", len(layers), len(layers))
    if all(update.factors is not None and update.factors.is_zero for update in updates.values()):
        raise AdapterError("The adapter changes nothing: its update is exactly zero in every layer. Train it first.")
    return updates


@torch.no_grad()
def delta_weight(layer: Any, name: str, adapter: str) -> Float[Tensor, "out_features in_features"]:
    """Return what an adapter adds to a layer's weight, on the CPU, in the type that its method computes it in.

    Args:
        layer: with the adapter, of PEFT's or ours.
        name: of the layer, for the error.
        adapter: name of the adapter.

    Raises: NotMergeableError for a method that does something else to its layers.
    """
    # PEFT calls variants of LoRA such as DoRA convertible, and gives a matrix that leaves out what is theirs.
    if not layer.supports_lora_conversion(adapter) or adapter in getattr(layer, "lora_variant", ()):
        raise NotMergeableError(
            f"{type(layer).__name__} at {name!r} adds no matrix to its layer, so there is none to export or merge. "
            "Keep it beside the model: PEFT loads its folder as it is, PeftModel.from_pretrained(model, folder)."
        )
    if "orig_weight" in inspect.signature(layer.get_delta_weight).parameters:
        raise NotMergeableError(
            f"{type(layer).__name__} at {name!r} gives its matrix in a way of its own, which qpeft does not read. "
            "PEFT's save_as_lora(folder, model, rank) and model.merge_and_unload() do."
        )
    matrix: Tensor = layer.get_delta_weight(adapter).detach().cpu()
    return matrix


def copies_lora(model: PeftModel, rank: int | None = None) -> bool:
    """Whether the active adapter is a LoRA that can be exported as it is, within this rank if one is given."""
    adapter = active_adapter(model)
    found = [_lora_factors(layer, adapter) for layer in adapted_layers(model).values()]
    return all(own is not None and (rank is None or own.rank <= rank) for own in found)


def _lora_factors(layer: Any, adapter: str) -> LowRank | None:
    """Return a plain LoRA's own matrices; None for other methods and for variants such as DoRA, which do more."""
    if not isinstance(layer, LoraLayer) or adapter not in layer.lora_A:
        return None
    down, up = layer.lora_A[adapter], layer.lora_B[adapter]
    is_plain = adapter not in layer.lora_variant and not layer.lora_bias.get(adapter)
    if not is_plain or type(down) is not nn.Linear or type(up) is not nn.Linear:
        return None
    return LowRank(down.weight.detach().cpu(), up.weight.detach().cpu(), error=0.0)


def _rounded(factors: LowRank) -> LowRank:
    # Contiguous, since safetensors refuses views.
    return LowRank(factors.down.float().contiguous(), factors.up.float().contiguous(), factors.error)

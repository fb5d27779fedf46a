"""Frozen factors turned to the inputs of their layers, before training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from peft import PeftModel
from torch import Tensor, nn

from qpeft.adapters.base import generator
from qpeft.adapters.base.factors import DenseFactor
from qpeft.adapters.base.principal import InputSketch
from qpeft.adapters.load import evaluating
from qpeft.adapters.qtha.branch import QthaBranch
from qpeft.adapters.qtha.layer import QthaLayer
from qpeft.errors import AdapterError


def frozen_factors(model: nn.Module, adapter_name: str = "default") -> dict[str, DenseFactor]:
    """The frozen `down` factors of an adapter, by the names of their layers."""
    branches = {
        name: layer.branches[adapter_name]
        for name, layer in model.named_modules()
        if isinstance(layer, QthaLayer) and adapter_name in layer.branches
    }
    return {
        name: branch.down
        for name, branch in branches.items()
        if isinstance(branch, QthaBranch) and isinstance(branch.down, DenseFactor) and not branch.down.trained
    }


def fit_inputs(
    model: PeftModel, batches: Iterable[Mapping[str, Tensor]], *, adapter_name: str = "default"
) -> dict[str, float]:
    """Turn the frozen `down` factors of an adapter to the principal directions of their layers' inputs.

        down_i = v_i / sqrt(3 m_i),   M v_i = m_i v_i,   M = mean over tokens of x x^T

    so that every entry of h = down x has a mean square of about 1/3, as a fresh LoRA's has for inputs of unit variance:
    m_i come from a sketch, which finds less of them where many directions are alike. Fit a fresh adapter: a trained one
    was trained with the factors it has. The model runs without adapters meanwhile.

    Args:
        model: with an adapter of `QthaConfig(down="frozen")`.
        batches: keyword arguments of the model, such as input_ids (batch, tokens); where attention_mask (batch, tokens)
            is 0, tokens are left out. A few dozen examples of the training data suffice.
        adapter_name: of the adapter.

    Returns:
        What share of the mean squared input the directions of each layer hold, by the layer's name.

    Raises: AdapterError if the adapter has no frozen factors, or the inputs have fewer directions than it has rows; all
    factors are then as they were.
    Source: principal directions of inputs as a start for LoRA: EVA, arXiv:2410.07170. Kept frozen and scaled to
    equal size, they are ours.
    """
    factors = frozen_factors(model, adapter_name)
    if not factors:
        raise AdapterError(
            f"Adapter {adapter_name!r} has no frozen factors to fit: make it with QthaConfig(down='frozen')."
        )
    sketches = {
        name: InputSketch(factor.matrix.shape[1], len(factor.matrix), generator(0, name))
        for name, factor in factors.items()
    }
    with evaluating(model), model.disable_adapter(), _watching(model, sketches) as show_mask:
        for batch in batches:
            show_mask(batch.get("attention_mask"))
            model(**batch)
    found = {name: _fitted(name, sketch) for name, sketch in sketches.items()}
    for name, (matrix, _) in found.items():
        factors[name].matrix.copy_(matrix)
    return {name: share for name, (_, share) in found.items()}


@contextmanager
def _watching(model: nn.Module, sketches: Mapping[str, InputSketch]) -> Iterator[Callable[[Tensor | None], None]]:
    """Every input of the layers that have a sketch is added to it; the mask of the batch says which tokens count."""
    mask: Tensor | None = None

    def show_mask(new: Tensor | None) -> None:
        nonlocal mask
        mask = None if new is None or bool(new.all()) else new.bool()

    def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def look(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            x: Tensor = inputs[0]
            if mask is not None and x.shape[:-1] != mask.shape:
                raise AdapterError(
                    f"At {name} the model gives tokens of all rows together, {tuple(x.shape)}, so which of them are "
                    "padding is not known. Fit it to batches without padding."
                )
            sketches[name].add(x.flatten(0, -2) if mask is None else x[mask.to(x.device)])

        return look

    hooks = [model.get_submodule(name).register_forward_pre_hook(watch(name)) for name in sketches]
    try:
        yield show_mask
    finally:
        for hook in hooks:
            hook.remove()


def _fitted(name: str, sketch: InputSketch) -> tuple[Tensor, float]:
    """The matrix, and the share of the mean squared input that its directions hold."""
    if not math.isfinite(sketch.mean_square):
        raise AdapterError(f"The inputs of {name} are not finite, so they have no directions.")
    directions, moments = sketch.directions()
    if not moments.all():
        raise AdapterError(
            f"The inputs of {name} have {int(moments.count_nonzero())} directions in {sketch.count} tokens, and the "
            f"adapter's rank there is {len(moments)}. Fit it to more examples, or take a smaller rank."
        )
    return directions / (3 * moments).sqrt()[:, None], moments.sum().item() / sketch.mean_square

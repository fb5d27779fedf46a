"""The start of factored adapters in the directions of the loss's gradient: what finds the directions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor, nn

from qpeft.adapters.base import (
    AbstractAdapterLayer,
    AbstractFactor,
    BareMpoFactor,
    FactoredBranch,
    GradientStartConfig,
    MpoFactor,
)
from qpeft.adapters.base.factors import DenseFactor
from qpeft.adapters.load import evaluating
from qpeft.errors import AdapterError

OVERSAMPLING = 64
"""Singular vectors beyond the rank that a tensor network is fitted to, since it cannot have the first exactly."""
SEARCH_STEPS = 60
"""Of L-BFGS, for a tensor network."""


def start_from_gradient(
    model: PeftModel, batches: Iterable[Mapping[str, Tensor]], *, adapter_name: str = "default"
) -> dict[str, float]:
    """Turn the `down` factors of a fresh adapter to the directions of the gradient of their layers' weights.

        G = dL/dW = U S V^T,  mean over batches;   down = c V_rank^T,   c as large as a row of `down` was

    `up` stays zero, so the model's outputs stay what they are; its first step is then the best step of this rank that
    there is for the weight. A tensor network cannot have V_rank exactly: its cores are fitted so that the rows of
    `down` span as much of G as they can. The model runs without adapters, in evaluation mode.
    G of all adapted layers, in float32, is in memory meanwhile: in_features x out_features each.

    Args:
        model: with a fresh adapter of a method of two factors.
        batches: keyword arguments of the model with labels: input_ids, attention_mask and labels (batch, tokens).
        adapter_name: of the adapter.

    Returns:
        What share of the squared gradient lies in the rows of `down`, by the layer's name.

    Raises: AdapterError if the adapter has no such factors or is trained already, if the model gives no loss, or if a
    gradient is zero or not finite; all factors are then as they were.
    Source: LoRA-GA (arXiv:2407.05000) and LoRA-One (arXiv:2502.01235) start both factors and change the base weight or
    the model's outputs by it; here one factor starts, and nothing else changes.
    """
    branches = _fresh_branches(model, adapter_name)
    gradients: dict[str, Tensor] = {}
    with evaluating(model), model.disable_adapter(), _collecting(model, branches, gradients):
        count = 0
        for batch in batches:
            count += 1
            with torch.enable_grad():
                loss = model(**batch, use_cache=False).loss
            if loss is None:
                raise AdapterError("The model gave no loss for these batches; they need labels.")
            loss.backward()
    if not count:
        raise AdapterError("start_from_gradient needs at least one batch; got none.")
    found = {}
    for name, branch in branches.items():
        gradient = gradients.get(name)
        if gradient is None or not gradient.isfinite().all() or not gradient.any():
            what = "none" if gradient is None else "one that is zero or not finite"
            raise AdapterError(
                f"{name} has no gradient to start from ({what}): every layer must be called, and tokens be labelled."
            )
        found[name] = _fitted(branch.down, gradient / count)
    # Only when all are known, so that a refused start leaves nothing half done.
    with torch.no_grad():
        for name, (state, _) in found.items():
            branches[name].down.load_state_dict(state)
    return {name: share for name, (_, share) in found.items()}


def starts_from_gradient(model: PeftModel, adapter_name: str = "default") -> int:
    """How many batches the adapter's config asks for; 0 where it starts at random."""
    config = model.peft_config[adapter_name]
    return config.init_batches if isinstance(config, GradientStartConfig) and config.init == "gradient" else 0


def _fresh_branches(model: nn.Module, adapter_name: str) -> dict[str, FactoredBranch]:
    branches = {}
    for name, layer in model.named_modules():
        if isinstance(layer, AbstractAdapterLayer) and adapter_name in layer.branches:
            branch = layer.branches[adapter_name]
            if not isinstance(branch, FactoredBranch) or not isinstance(
                branch.down, (DenseFactor, MpoFactor, BareMpoFactor)
            ):
                raise AdapterError(f"{name} has no factor that could start from a gradient: a method of another kind.")
            with torch.no_grad():
                if branch.up().any():
                    raise AdapterError(
                        f"The adapter at {name} changes the model already. Start a fresh one from the gradient: a "
                        "trained one was trained with the directions that it has."
                    )
            branches[name] = branch
    if not branches:
        raise AdapterError(f"No layer of the model has a qpeft adapter called {adapter_name!r}.")
    return branches


@contextmanager
def _collecting(model: nn.Module, names: Iterable[str], into: dict[str, Tensor]) -> Iterator[None]:
    """Add dL/dW of every named layer to `into` at each backward pass, whatever its weight is stored as."""

    def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
        def look(_: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            x = inputs[0].detach()
            # All weights are frozen, so nothing before the first adapted layer has a gradient, nor has its output.
            if not output.requires_grad:
                output.requires_grad_()

            def add(gradient: Tensor) -> None:
                g = gradient.detach().flatten(0, -2).float().T @ x.flatten(0, -2).float()
                into[name] = into[name] + g if name in into else g

            output.register_hook(add)

        return look

    trained = [weight for weight in model.parameters() if weight.requires_grad]
    hooks = [model.get_submodule(name).register_forward_hook(watch(name)) for name in names]
    try:
        for weight in trained:
            weight.requires_grad_(False)
        yield
    finally:
        for weight in trained:
            weight.requires_grad_()
        for hook in hooks:
            hook.remove()


def _fitted(factor: AbstractFactor, gradient: Float[Tensor, "out in"]) -> tuple[dict[str, Tensor], float]:
    """The factor's new weights, and the share of the squared gradient that its rows span."""
    fitted = deepcopy(factor).double()
    start = fitted().detach()
    rank = len(start)
    principal = _principal(gradient, rank).to(start)
    whole = float(gradient.double().square().sum())
    size = start.square().sum(1).mean().sqrt()
    if isinstance(fitted, DenseFactor):
        fitted.matrix.data.copy_(size * nn.functional.normalize(principal[:rank], dim=1))
    else:
        _search(fitted, principal, whole)
        _rescale(fitted, principal, size)
    share = _captured(fitted().detach(), principal) / whole
    like = factor.state_dict()
    return {name: weight.to(like[name].dtype) for name, weight in fitted.state_dict().items()}, float(share)


def _principal(gradient: Float[Tensor, "out in"], rank: int) -> Float[Tensor, "some in"]:
    """S V^T of the largest singular values, float64, at least `rank` rows."""
    count = min(rank + OVERSAMPLING, *gradient.shape)
    # From a seed of its own, and torch's global numbers as they were: a run is the same before and after this.
    with torch.random.fork_rng(devices=[gradient.device] if gradient.is_cuda else []):
        torch.manual_seed(0)
        _, values, vectors = torch.svd_lowrank(gradient.double(), q=count, niter=6)
    # Signs are free; fixed, so that machines agree on them.
    rows = vectors.T * vectors.T.gather(1, vectors.T.abs().argmax(1, keepdim=True)).sign()
    found = values[:, None] * rows
    if len(found) < rank:
        found = nn.functional.pad(found, (0, 0, 0, rank - len(found)))
    return found


def _captured(down: Float[Tensor, "rank in"], principal: Float[Tensor, "some in"]) -> Tensor:
    """Squared norm of the gradient within the span of the rows of `down`; differentiable."""
    basis: Tensor = torch.linalg.qr(down.T).Q
    return (principal @ basis).square().sum()


def _search(factor: nn.Module, principal: Tensor, whole: float) -> None:
    """Move the weights of a tensor network to where its rows span the most of the gradient."""
    weights = [weight.requires_grad_() for weight in factor.parameters()]
    search = torch.optim.LBFGS(weights, max_iter=SEARCH_STEPS, line_search_fn="strong_wolfe")

    def left_out() -> Tensor:
        search.zero_grad()
        with torch.enable_grad():
            loss = 1 - _captured(factor(), principal) / whole
            loss.backward()
        return loss

    search.step(left_out)


@torch.no_grad()
def _rescale(factor: nn.Module, principal: Tensor, size: Tensor) -> None:
    """Give `down` rows of the usual size, orthogonal and the strongest first where the network allows it."""
    down = factor()
    if isinstance(factor, MpoFactor):
        # Only the span was searched for, so any invertible matrix may stand before it.
        turn = torch.linalg.inv(torch.linalg.qr(down.T).R.T)
        order = torch.linalg.svd(turn @ down @ principal.T, full_matrices=False).U.T
        factor.bottleneck.copy_(size * order @ turn @ factor.bottleneck)
    elif isinstance(factor, BareMpoFactor):
        factor.operator.cores[0].mul_(size * math.sqrt(len(down)) / down.norm())

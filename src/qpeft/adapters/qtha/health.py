"""How the circuits of a model are doing in training: what goes in, what comes out, what reaches their weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from qpeft.adapters.qtha.bottleneck import AbstractAngleBottleneck
from qpeft.adapters.qtha.branch import QthaBranch
from qpeft.adapters.qtha.layer import QthaLayer

TOKENS = 64
"""Of a batch, looked at in every layer."""


@dataclass(frozen=True)
class CircuitHealth:
    """One layer's circuits on one batch.

    Attributes:
        angle_spread: standard deviation of an input angle over tokens, radians, mean over qubits.
        wrapped: share of input angles more than half a turn from the encoding's offset, so that tokens within half a
            turn of it are encoded alike.
        variance: of an expectation value over tokens, mean over qubits; 0 says that the output ignores the input.
        circuit_gradient: root mean square over the circuits' weights; None for weights that are not trained.
        core_gradient: root mean square over the factors around the circuits.
    """

    angle_spread: float
    wrapped: float
    variance: float
    circuit_gradient: float | None
    core_gradient: float


def circuit_branches(model: nn.Module) -> dict[str, QthaBranch]:
    """Branches with circuits, of active adapters, by the name of their layer."""
    return dict(_circuit_branches(model))


def _circuit_branches(model: nn.Module) -> Iterator[tuple[str, QthaBranch]]:
    for module in model.modules():
        if isinstance(module, QthaLayer):
            active = [branch for adapter, branch in module.branches.items() if adapter in module.active_adapters]
            for branch in active:
                if isinstance(branch, QthaBranch) and isinstance(branch.middle, AbstractAngleBottleneck):
                    yield module.name, branch


class CircuitProbe:
    """Looks at circuits during one forward pass, then at the gradients that followed.

    Args:
        branches: from `circuit_branches`.
        tokens: mask of the tokens to look at, of the batch shape of the layers' inputs; `TOKENS` of them are taken.
    """

    def __init__(self, branches: dict[str, QthaBranch], tokens: Tensor) -> None:
        self._branches = branches
        chosen = tokens.flatten().nonzero().flatten()
        places = torch.linspace(0, len(chosen) - 1, min(TOKENS, len(chosen)), device=chosen.device).round().long()
        self._chosen = chosen[places]
        self._seen: dict[str, tuple[Tensor, Tensor]] = {}
        self._handles = [self._watch(name, branch) for name, branch in branches.items()]

    @torch.no_grad()
    def finish(self) -> dict[str, CircuitHealth]:
        """By layer, after the backward pass. Layers that the forward pass did not reach are left out."""
        for handle in self._handles:
            handle.remove()
        rows = {name: self._measure(self._branches[name], *seen) for name, seen in self._seen.items()}
        if not rows:
            return {}
        # One transfer from the GPU for all of them.
        values = torch.stack(list(rows.values())).cpu().tolist()
        return {name: _named(row) for name, row in zip(rows, values, strict=True)}

    def _watch(self, name: str, branch: QthaBranch) -> RemovableHandle:
        bottleneck = branch.middle
        assert isinstance(bottleneck, AbstractAngleBottleneck)

        @torch.no_grad()
        def look(_: nn.Module, inputs: tuple[Any, ...], values: Tensor) -> None:
            if name not in self._seen:  # gradient checkpointing repeats the pass
                h, z = (part.detach().flatten(0, -2)[self._chosen].float() for part in (inputs[0], values))
                self._seen[name] = (bottleneck.angles(h), z)

        return bottleneck.register_forward_hook(look)

    @staticmethod
    def _measure(branch: QthaBranch, angles: Tensor, values: Tensor) -> Tensor:
        assert isinstance(branch.middle, AbstractAngleBottleneck)
        wrapped = ((angles - branch.middle.offset).abs() > math.pi).float().mean()
        cores = [*branch.down.parameters(), *branch.up.parameters()]
        return torch.stack(
            [
                angles.std(0, correction=0).mean(),
                wrapped,
                values.var(0, correction=0).mean(),
                _root_mean_square([branch.middle.weights]),
                _root_mean_square(cores),
            ]
        )


def _root_mean_square(weights: Sequence[Tensor]) -> Tensor:
    """Of their gradients; NaN if none has any."""
    gradients = [weight.grad.float() for weight in weights if weight.grad is not None]
    if not gradients:
        return torch.full((), math.nan, device=weights[0].device)
    squares = torch.stack([gradient.square().sum() for gradient in gradients]).sum()
    return (squares / sum(gradient.numel() for gradient in gradients)).sqrt()


def _named(row: list[float]) -> CircuitHealth:
    angle_spread, wrapped, variance, circuit, cores = row
    return CircuitHealth(angle_spread, wrapped, variance, None if math.isnan(circuit) else circuit, cores)

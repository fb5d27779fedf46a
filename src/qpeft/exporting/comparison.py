"""How near a linear stand-in comes to its adapter: logits on a probe, loss on held-out text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor, nn

from qpeft.adapters.bridge import BaseTunerLayer
from qpeft.adapters.load import evaluating
from qpeft.data import Encoded
from qpeft.evaluation import HeldOutLoss, held_out_loss
from qpeft.evaluation.loss import replaced
from qpeft.exporting.updates import LinearUpdate
from qpeft.runs.bars import OnProgress, to_nobody


@dataclass(frozen=True)
class LogitsDifference:
    """Between an adapter and what replaces it, over all logits of all `tokens`.

    `divergence`: Kullback-Leibler, of the other's next-token distribution from the adapter's, nats per token.
    """

    maximum: float
    mean: float
    divergence: float
    tokens: int


@dataclass(frozen=True)
class Losses:
    """Held-out loss in nats per token, over `tokens` tokens."""

    base: float
    adapter: float
    export: float
    tokens: int


@contextmanager
def trainability_restored(model: nn.Module) -> Iterator[None]:
    """Give the weights back their trainability after the block, in which PEFT's switches may change it."""
    before = [(weight, weight.requires_grad) for weight in model.parameters()]
    try:
        yield
    finally:
        for weight, trainable in before:
            weight.requires_grad_(trainable)


@contextmanager
def standing_in(layers: Mapping[str, BaseTunerLayer], updates: Mapping[str, LinearUpdate]) -> Iterator[None]:
    """Have layers add their linear updates in place of their adapters' within the block.

    Layers whose update is their own matrix go on as they are.

    Args:
        layers: adapted layers by name.
        updates: linear updates by the same names.
    """

    def add(forward: Callable[..., Tensor], update: LinearUpdate, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return what the layer gives, plus its update of x."""
        assert update.factors is not None
        output = forward(x, *args, **kwargs)
        down, up = (factor.to(x.device).float() for factor in (update.factors.down, update.factors.up))
        # In float32 even for half-precision layers, as adapters themselves are computed.
        change = update.scaling * nn.functional.linear(nn.functional.linear(x.to(down.dtype), down), up)
        if update.constant is not None:
            change = change + update.constant.to(x.device)
        return output + change.to(output.dtype)

    with ExitStack() as stack:
        for name, update in updates.items():
            if update.factors is not None:
                layer = layers[name]
                stack.callback(layer.enable_adapters, True)
                layer.enable_adapters(False)
                # Not by a hook: where only what the head reads is wanted (`held_out_loss`), the layer's forward is
                # replaced, and hooks would still act.
                stack.enter_context(replaced(layer, partial(add, layer.forward, update)))
        yield


def compare_logits(
    model: PeftModel,
    layers: Mapping[str, BaseTunerLayer],
    updates: Mapping[str, LinearUpdate],
    probe: Sequence[Encoded],
    *,
    on_progress: OnProgress = to_nobody,
) -> tuple[LogitsDifference, LogitsDifference]:
    """Return how base model and export differ from the adapter in logits, on every token of the probe.

    Args:
        model: with the adapter.
        layers: adapted layers by name.
        updates: linear updates in the adapter's place, by the same names.
        probe: examples whose every token is looked at.
        on_progress: told how many examples are done.
    """
    # Sums, example by example: logits of all tokens at once, as wide as the vocabulary, would fill memory.
    of_base, of_export = _Differences(), _Differences()
    for done, one in enumerate(probe):
        on_progress("logits", done, len(probe))
        adapter = logits_of(model, one)
        with model.disable_adapter():
            of_base.add(adapter, logits_of(model, one))
        with standing_in(layers, updates):
            of_export.add(adapter, logits_of(model, one))
    on_progress("logits", len(probe), len(probe))
    return of_base.result(), of_export.result()


def compare_losses(
    model: PeftModel,
    layers: Mapping[str, BaseTunerLayer],
    updates: Mapping[str, LinearUpdate],
    held_out: Sequence[Encoded],
    *,
    on_progress: OnProgress = to_nobody,
) -> Losses:
    """Return the held-out losses of base, adapter and export.

    Args:
        model: with the adapter.
        layers: adapted layers by name.
        updates: linear updates in the adapter's place, by the same names.
        held_out: examples.
        on_progress: told how many examples are done.
    """

    def measured(number: int) -> HeldOutLoss:
        def tell(what: str, done: int, total: int) -> None:
            """Tell how far all three losses are, of which this is the one of that number."""
            on_progress(f"{what} of adapter, base and export", number * total + done, 3 * total)

        return held_out_loss(model, held_out, on_progress=tell)

    adapter = measured(0)
    with model.disable_adapter():
        base = measured(1)
    with standing_in(layers, updates):
        export = measured(2)
    return Losses(base.loss, adapter.loss, export.loss, adapter.tokens)


def logits_of(model: nn.Module, one: Encoded) -> Float[Tensor, "tokens vocabulary"]:
    """Return the logits of every token of an example, float32."""
    device = next(model.parameters()).device
    with evaluating(model):
        logits: Tensor = model(input_ids=torch.tensor([one.input_ids], device=device), use_cache=False).logits
    return logits[0].float()


def logits_difference(pairs: Iterable[tuple[Tensor, Tensor]]) -> LogitsDifference:
    """Return the difference of pairs (adapter's logits, others' logits), each (tokens, vocabulary), one an example."""
    found = _Differences()
    for adapter, other in pairs:
        found.add(adapter, other)
    return found.result()


class _Differences:
    """Sums over examples, from which a `LogitsDifference` is made."""

    def __init__(self) -> None:
        self._maximum = self._total = self._divergence = 0.0
        self._tokens = self._size = 0

    def add(self, adapter: Tensor, other: Tensor) -> None:
        """Count an example's logits, (tokens, vocabulary) each."""
        apart = (other - adapter).abs()
        self._maximum = max(self._maximum, float(apart.max()))
        self._total += float(apart.double().sum())
        # Float64: divergences of a good export are about as small as float32's rounding of one logarithm.
        true, given = adapter.double().log_softmax(-1), other.double().log_softmax(-1)
        self._divergence += float((true.exp() * (true - given)).sum())
        self._tokens, self._size = self._tokens + len(adapter), self._size + adapter.numel()

    def result(self) -> LogitsDifference:
        """Return the difference over all examples so far."""
        mean, divergence = self._total / self._size, self._divergence / self._tokens
        return LogitsDifference(self._maximum, mean, divergence, self._tokens)

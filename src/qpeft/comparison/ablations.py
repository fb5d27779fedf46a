"""Trained adapters with the output of their middle spoilt, to see how much of the answer came through it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from qpeft.adapters.qtha.middle import AbstractMiddle
from qpeft.data import Encoded
from qpeft.errors import StudyError
from qpeft.evaluation import held_out_loss

Change = Callable[[AbstractMiddle, Tensor], Tensor]
"""A middle and its outputs at the tokens of a batch, (tokens, features), padding left out, to what is put there."""


@contextmanager
def permuted(model: nn.Module, _: Sequence[Encoded]) -> Iterator[None]:
    """Inside, every token of a batch gets the middle's output of another one, drawn anew for every layer."""
    generator = torch.Generator().manual_seed(0)

    def shuffle(_: AbstractMiddle, outputs: Tensor) -> Tensor:
        return outputs[torch.randperm(len(outputs), generator=generator).to(outputs.device)]

    with _changed(model, shuffle):
        yield


@contextmanager
def replaced_by_mean(model: nn.Module, encoded: Sequence[Encoded]) -> Iterator[None]:
    """Inside, every token gets the same output of the middle: its mean over all tokens of these examples."""
    sums: dict[AbstractMiddle, Tensor] = {}
    counts: dict[AbstractMiddle, int] = {}

    def collect(middle: AbstractMiddle, outputs: Tensor) -> Tensor:
        sums[middle] = sums.get(middle, 0) + outputs.double().sum(0)
        counts[middle] = counts.get(middle, 0) + len(outputs)
        return outputs

    with _changed(model, collect):
        held_out_loss(model, encoded)

    def mean(middle: AbstractMiddle, outputs: Tensor) -> Tensor:
        return (sums[middle] / counts[middle]).to(outputs.dtype).expand_as(outputs)

    with _changed(model, mean):
        yield


ABLATIONS: dict[str, Callable[[nn.Module, Sequence[Encoded]], AbstractContextManager[None]]] = {
    "output permuted among tokens": permuted,
    "output replaced by its mean": replaced_by_mean,
}
"""By the name that the report gives them."""


@contextmanager
def _changed(model: nn.Module, change: Change) -> Iterator[None]:
    """Every middle's output changed, at tokens that are no padding. Raises: StudyError if there is no middle."""
    middles = [module for module in model.modules() if isinstance(module, AbstractMiddle)]
    if not middles:
        raise StudyError("The adapter has no middle to ablate; only QTHA with a middle other than none has.")
    # None outside of a batch: the loss tries parts of the model before, and what they return is not measured.
    is_token: Tensor | None = None

    def remember(_: nn.Module, __: Any, inputs: dict[str, Any]) -> None:
        nonlocal is_token
        is_token = inputs["attention_mask"].bool()

    def forget(_: nn.Module, __: Any, ___: Any) -> None:
        nonlocal is_token
        is_token = None

    def replace(middle: AbstractMiddle, _: Any, output: Tensor) -> Tensor:
        if is_token is None:
            return output
        changed = output.clone()
        changed[is_token] = change(middle, output[is_token])
        return changed

    with ExitStack() as hooks:
        hooks.callback(model.register_forward_pre_hook(remember, with_kwargs=True).remove)
        hooks.callback(model.register_forward_hook(forget, always_call=True).remove)
        for middle in middles:
            hooks.callback(middle.register_forward_hook(replace).remove)
        yield

"""Loss on held-out answers: mean negative log-likelihood per trained-on token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from qpeft.adapters.modes import evaluating
from qpeft.data import Encoded, pad_batch
from qpeft.data.encode import IGNORED
from qpeft.evaluation.causal_loss import CausalLoss
from qpeft.runs.bars import OnProgress, to_nobody

TOKENS_PER_BATCH = 1024
"""Padded tokens at once, unless one example has more."""


@dataclass(frozen=True)
class HeldOutLoss:
    """`loss`: nats per token, averaged over all `tokens` that are labelled, whatever batch they were in.

    `item_sums`, `item_tokens`: nats and labelled tokens of each example, in the order in which they were given.
    """

    loss: float
    tokens: int
    item_sums: tuple[float, ...]
    item_tokens: tuple[int, ...]


def held_out_loss(
    model: PreTrainedModel,
    encoded: Sequence[Encoded],
    *,
    tokens_per_batch: int | None = None,
    on_progress: OnProgress = to_nobody,
) -> HeldOutLoss:
    """The loss of a causal language model on encoded examples; the model's mode is as before afterwards.

    Args:
        model: with or without adapters.
        encoded: at least one example.
        tokens_per_batch: padded tokens at once, at most; None for `TOKENS_PER_BATCH`. One example is always whole.
        on_progress: told how many examples have been read.
    """
    device, loss_of = next(model.parameters()).device, CausalLoss(model)
    sums, tokens = torch.zeros(len(encoded), dtype=torch.float64), torch.zeros(len(encoded), dtype=torch.long)
    read = 0
    on_progress("held-out loss", read, len(encoded))
    with evaluating(model):
        for batch in _batches(encoded, tokens_per_batch or TOKENS_PER_BATCH):
            inputs = pad_batch([encoded[index] for index in batch])
            labels = inputs.pop("labels")
            losses = loss_of(model, {name: part.to(device) for name, part in inputs.items()}, labels.to(device)).losses
            rows = torch.tensor(batch)[(labels[:, 1:] != IGNORED).nonzero()[:, 0]]
            sums.index_add_(0, rows, losses.double().cpu())
            tokens += torch.bincount(rows, minlength=len(encoded))
            read += len(batch)
            on_progress("held-out loss", read, len(encoded))
    total, count = sums.sum().item(), int(tokens.sum())
    return HeldOutLoss(total / count, count, tuple(sums.tolist()), tuple(tokens.tolist()))


def largest_batch(encoded: Sequence[Encoded], *, tokens_per_batch: int) -> list[Encoded]:
    """The examples of the batch that takes the most memory when their loss is measured."""
    batches = ([encoded[index] for index in batch] for batch in _batches(encoded, tokens_per_batch))
    return max(batches, key=lambda batch: len(batch) * len(batch[-1].input_ids))


def _batches(encoded: Sequence[Encoded], tokens_per_batch: int) -> Iterator[list[int]]:
    """Indices of examples of like length together, so that little is padding."""
    lengths = [len(one.input_ids) for one in encoded]
    batch: list[int] = []
    for index in sorted(range(len(encoded)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[index] > tokens_per_batch:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch

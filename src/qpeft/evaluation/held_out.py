"""Loss on held-out answers: mean negative log-likelihood per trained-on token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from qpeft.data import Encoded
from qpeft.data.encode import IGNORED
from qpeft.evaluation.modes import evaluating

TOKENS_PER_BATCH = 1024
"""Padded tokens at once; their logits are the largest thing an evaluation holds."""


@dataclass(frozen=True)
class HeldOutLoss:
    """`loss`: nats per token, averaged over all `tokens` that are labelled, whatever batch they were in.

    `item_sums`, `item_tokens`: nats and labelled tokens of each example, in the order in which they were given.
    """

    loss: float
    tokens: int
    item_sums: tuple[float, ...]
    item_tokens: tuple[int, ...]


def held_out_loss(model: nn.Module, encoded: Sequence[Encoded]) -> HeldOutLoss:
    """The loss of a causal language model on encoded examples; the model's mode is as before afterwards."""
    device = next(model.parameters()).device
    sums, tokens = torch.zeros(len(encoded), dtype=torch.float64), torch.zeros(len(encoded), dtype=torch.long)
    with evaluating(model):
        for batch in _batches(encoded):
            chosen = [encoded[index] for index in batch]
            input_ids, attention_mask, labels = (part.to(device) for part in _pad(chosen))
            logits = model(input_ids=input_ids, attention_mask=attention_mask).logits
            wanted = labels[:, 1:] != IGNORED
            losses = nn.functional.cross_entropy(
                logits[:, :-1][wanted].float(), labels[:, 1:][wanted], reduction="none"
            )
            rows = torch.tensor(batch)[wanted.nonzero()[:, 0].cpu()]
            sums.index_add_(0, rows, losses.double().cpu())
            tokens += torch.bincount(rows, minlength=len(encoded))
    total, count = sums.sum().item(), int(tokens.sum())
    return HeldOutLoss(total / count, count, tuple(sums.tolist()), tuple(tokens.tolist()))


def _batches(encoded: Sequence[Encoded]) -> Iterator[list[int]]:
    """Indices of examples of like length together, so that little is padding."""
    lengths = [len(one.input_ids) for one in encoded]
    batch: list[int] = []
    for index in sorted(range(len(encoded)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[index] > TOKENS_PER_BATCH:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _pad(batch: Sequence[Encoded]) -> tuple[Tensor, Tensor, Tensor]:
    """input_ids, attention_mask and labels, (len(batch), longest), padded on the right."""
    longest = max(len(one.input_ids) for one in batch)
    input_ids = torch.zeros(len(batch), longest, dtype=torch.long)
    attention_mask = torch.zeros(len(batch), longest, dtype=torch.long)
    labels = torch.full((len(batch), longest), IGNORED)
    for row, one in enumerate(batch):
        length = len(one.input_ids)
        input_ids[row, :length] = torch.tensor(one.input_ids)
        attention_mask[row, :length] = 1
        labels[row, :length] = torch.tensor(one.labels)
    return input_ids, attention_mask, labels

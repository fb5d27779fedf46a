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
    """`loss`: nats per token, averaged over all `tokens` that are labelled, whatever batch they were in."""

    loss: float
    tokens: int


def held_out_loss(model: nn.Module, encoded: Sequence[Encoded]) -> HeldOutLoss:
    """The loss of a causal language model on encoded examples; the model's mode is as before afterwards."""
    device = next(model.parameters()).device
    total, tokens = 0.0, 0
    with evaluating(model):
        for batch in _batches(encoded):
            input_ids, attention_mask, labels = (part.to(device) for part in _pad(batch))
            logits = model(input_ids=input_ids, attention_mask=attention_mask).logits
            wanted = labels[:, 1:] != IGNORED
            losses = nn.functional.cross_entropy(
                logits[:, :-1][wanted].float(), labels[:, 1:][wanted], reduction="none"
            )
            total += losses.double().sum().item()
            tokens += int(wanted.sum())
    return HeldOutLoss(total / tokens, tokens)


def _batches(encoded: Sequence[Encoded]) -> Iterator[list[Encoded]]:
    """Examples of like length together, so that little is padding."""
    batch: list[Encoded] = []
    for one in sorted(encoded, key=lambda one: len(one.input_ids)):
        if batch and (len(batch) + 1) * len(one.input_ids) > TOKENS_PER_BATCH:
            yield batch
            batch = []
        batch.append(one)
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

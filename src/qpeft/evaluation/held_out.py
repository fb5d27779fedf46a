"""Loss on held-out answers: mean negative log-likelihood per trained-on token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from qpeft.adapters.modes import evaluating
from qpeft.data import Encoded
from qpeft.data.encode import IGNORED
from qpeft.runs.bars import OnProgress, to_nobody

TOKENS_PER_BATCH = 1024
"""Padded tokens at once, unless one example has more."""
LOGITS_AT_ONCE = 128
"""Tokens whose logits exist at a time: with a large vocabulary nothing else would be as large."""


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
    device = next(model.parameters()).device
    sums, tokens = torch.zeros(len(encoded), dtype=torch.float64), torch.zeros(len(encoded), dtype=torch.long)
    read = 0
    on_progress("held-out loss", read, len(encoded))
    with evaluating(model):
        for batch in _batches(encoded, tokens_per_batch or TOKENS_PER_BATCH):
            input_ids, attention_mask, labels = (part.to(device) for part in _pad([encoded[index] for index in batch]))
            losses = _losses(model, input_ids, attention_mask, labels)
            rows = torch.tensor(batch)[(labels[:, 1:] != IGNORED).nonzero()[:, 0].cpu()]
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


def _losses(model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> Tensor:
    """Negative log-likelihood of every labelled token, float32, in the order of the labels."""
    wanted = labels[:, 1:] != IGNORED
    targets = labels[:, 1:][wanted]
    head = model.get_output_embeddings()
    with _read_by(head) as read:
        returned = model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits
    hidden = read[-1]
    if returned.shape == hidden.shape and torch.equal(returned.to(hidden.dtype), hidden):
        rows = zip(hidden[:, :-1][wanted].split(LOGITS_AT_ONCE), targets.split(LOGITS_AT_ONCE), strict=True)
        return torch.cat([_cross_entropy(head(part), target) for part, target in rows])
    # The model scales or caps what its head gives, each in its own way, so only it can say what its logits are.
    logits = model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits
    return _cross_entropy(logits[:, :-1][wanted], targets)


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits.float(), targets, reduction="none")


@contextmanager
def _read_by(head: nn.Module) -> Iterator[list[Tensor]]:
    """Inside, the head gives back what it reads, which is also put into the list."""
    read: list[Tensor] = []

    def forward(hidden: Tensor) -> Tensor:
        read.append(hidden)
        return hidden

    own = head.__dict__.get("forward")  # a library's, such as accelerate's
    head.forward = forward
    try:
        yield read
    finally:
        del head.forward
        if own is not None:
            head.forward = own


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

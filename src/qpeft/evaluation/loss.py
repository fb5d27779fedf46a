"""The loss of a causal language model: of one batch, differentiable, and of held-out answers."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from qpeft.adapters.load import evaluating
from qpeft.data import Encoded, pad_batch
from qpeft.data.encode import IGNORED
from qpeft.runs.bars import OnProgress, to_nobody

TOKENS_PER_BATCH = 1024
"""Padded tokens at once, unless one example has more."""
LOGITS_AT_ONCE = 128
"""Tokens whose logits exist at a time on a CPU: with a large vocabulary nothing else would be as large."""
LOGITS_AT_ONCE_ON_GPU = 2048
"""The same on a GPU, where many small products would cost more than they save."""

log = logging.getLogger(__name__)


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
    """Return the loss of a causal language model on encoded examples; its mode is as before afterwards.

    Args:
        model: with or without adapters.
        encoded: at least one example.
        tokens_per_batch: padded tokens at once, at most; None for `TOKENS_PER_BATCH`. One example is always whole.
        on_progress: told how many examples have been read.
    """
    device, loss_of = next(model.parameters()).device, CausalLoss(model)
    # In float64: thousands of float32 losses would lose the digits in which two adapters differ.
    sums, tokens = torch.zeros(len(encoded), dtype=torch.float64), torch.zeros(len(encoded), dtype=torch.long)
    read = 0
    on_progress("held-out loss", read, len(encoded))
    with evaluating(model):
        for batch in _batches(encoded, tokens_per_batch or TOKENS_PER_BATCH):
            inputs = pad_batch([encoded[index] for index in batch])
            labels = inputs.pop("labels")
            losses = loss_of(model, {name: part.to(device) for name, part in inputs.items()}, labels.to(device)).losses
            # Losses come in the order of labels, row by row; this says which example each belongs to.
            rows = torch.tensor(batch)[(labels[:, 1:] != IGNORED).nonzero()[:, 0]]
            sums.index_add_(0, rows, losses.double().cpu())
            tokens += torch.bincount(rows, minlength=len(encoded))
            read += len(batch)
            on_progress("held-out loss", read, len(encoded))
    total, count = sums.sum().item(), int(tokens.sum())
    return HeldOutLoss(total / count, count, tuple(sums.tolist()), tuple(tokens.tolist()))


def largest_batch(encoded: Sequence[Encoded], *, tokens_per_batch: int) -> list[Encoded]:
    """Return the examples of the batch that takes the most memory when their loss is measured."""
    batches = ([encoded[index] for index in batch] for batch in _batches(encoded, tokens_per_batch))
    return max(batches, key=lambda batch: len(batch) * len(batch[-1].input_ids))


def _batches(encoded: Sequence[Encoded], tokens_per_batch: int) -> Iterator[list[int]]:
    """Yield indices of examples of like length together, so that little is padding."""
    lengths = [len(one.input_ids) for one in encoded]
    batch: list[int] = []
    for index in sorted(range(len(encoded)), key=lengths.__getitem__):
        # From short to long, so the newcomer is the length that all are padded to.
        if batch and (len(batch) + 1) * lengths[index] > tokens_per_batch:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


@dataclass(frozen=True)
class LossParts:
    """The loss of a batch.

    `total`: nats over all labelled tokens, differentiable. `losses`: nats of each of them, float32, in the order of the
    labels. `correct`: whether its label is the likeliest token. `outputs`: what the model returned besides.
    """

    total: Tensor
    losses: Tensor
    correct: Tensor
    outputs: Any


class CausalLoss:
    """Cross-entropy of the next token, as the model's own logits give it.

    Hidden states times the head's weight give another loss wherever a model caps or scales its logits, or has more in
    its head than a weight (an adapter, single trained tokens). So the model's own forward pass does the work, and a
    small one at the start finds out how its logits can be had block by block.

    Args:
        model: with or without adapters; the weights that will be trained are trainable already.

    Attributes:
        way: "head" if logits are what the head returns; "tail" if the model changes them afterwards, so that its
            forward pass is entered again behind its decoder; "logits" if all logits have to exist at once.
    """

    def __init__(self, model: PreTrainedModel | PeftModel) -> None:
        self._causal: PreTrainedModel = model.get_base_model() if isinstance(model, PeftModel) else model
        self._head, self._decoder = self._causal.get_output_embeddings(), self._causal.get_decoder()
        self.way: Literal["head", "tail", "logits"] = "logits"
        self._trains_behind = False
        if self._head is not None:
            with evaluating(model):
                self._find_way(torch.tensor([[1, 2, 3, 1, 2, 3]], device=model.device))

    def _find_way(self, input_ids: Tensor) -> None:
        logits = self._causal(input_ids=input_ids, use_cache=False).logits
        try:
            idle = replaced(self._head, lambda hidden: hidden)
            with idle, _outputs_of(self._head) as read, _outputs_of(self._decoder) as decoder_outputs:
                returned = self._causal(input_ids=input_ids, use_cache=False).logits
            (hidden,), decoded = read, None
            # A head that does nothing leaves hidden states where logits were, unless the model changes these after it.
            if returned.shape == hidden.shape and torch.equal(returned.to(hidden.dtype), hidden):
                self.way, rows = "head", hidden[0]
            else:
                (decoded,) = decoder_outputs
                self.way, rows = "tail", decoded.last_hidden_state[0]
            same = torch.allclose(self._logits(rows, decoded).float(), logits[0].float(), rtol=1e-2, atol=1e-3)
            # Only autograd knows whether a weight behind the decoder is trained: PEFT keeps single trained tokens of a
            # tied head, for one, out of the head's parameters.
            with torch.enable_grad():
                self._trains_behind = self._logits(rows[:1], decoded).requires_grad
        except (RuntimeError, ValueError, TypeError, AttributeError) as error:
            # Whatever it was that the model does with hidden states, its plain forward pass above has worked.
            log.info("%s gives its logits all at once only: %s", type(self._causal).__name__, error)
            same = False
        if not same:
            self.way = "logits"

    def __call__(self, model: nn.Module, inputs: Mapping[str, Any], labels: Tensor) -> LossParts:
        """Return the loss of a batch.

        Args:
            model: the one given before, or what wraps it for several processes or GPUs.
            inputs: of its forward pass: `input_ids` (batch, sequence) and others, no labels.
            labels: (batch, sequence), each at its token's own position; -100 where nothing is trained.
        """
        # The logits at a token are about the next one.
        wanted, targets = labels[:, 1:] != IGNORED, labels[:, 1:]
        # Copies on several GPUs have heads of their own, which nothing here would stand in for.
        if self.way == "logits" or isinstance(model, nn.DataParallel):
            outputs = model(**inputs, use_cache=False)
            wanted = wanted.to(outputs.logits.device)
            logits, targets = outputs.logits[:, :-1][wanted], targets.to(wanted.device)[wanted]
            losses = cross_entropy(logits.float(), targets, reduction="none")
            return LossParts(losses.sum(), losses.detach(), logits.detach().argmax(-1) == targets, outputs)

        found: list[tuple[Tensor, Tensor, Tensor]] = []
        own = self._head.forward

        # The blocks are made inside the forward pass, where a sharded model has its weights together.
        def in_place_of_logits(hidden: Tensor) -> Tensor:
            decoded = None if self.way == "head" else decoder_outputs[0]
            rows = hidden if decoded is None else decoded.last_hidden_state
            here = wanted.to(rows.device)
            with replaced(self._head, own):
                found.append(self._in_blocks(rows[:, :-1][here], targets.to(rows.device)[here], decoded))
            # In the graph, since whatever shards the model waits for gradients of what its forward pass returns.
            return found[0][0].expand(*hidden.shape[:2], 1)

        with replaced(self._head, in_place_of_logits), _outputs_of(self._decoder) as decoder_outputs:
            outputs = model(**inputs, use_cache=False)
        return LossParts(*found[0], outputs)

    def _in_blocks(self, rows: Tensor, targets: Tensor, decoded: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Return total, losses and hits of hidden states (tokens, hidden size)."""

        def block(part: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
            logits = self._logits(part, decoded)
            return cross_entropy(logits.float(), target, reduction="none"), logits.detach().argmax(-1) == target

        at_once = LOGITS_AT_ONCE if rows.device.type == "cpu" else LOGITS_AT_ONCE_ON_GPU
        if torch.is_grad_enabled() and not self._trains_behind:
            total, losses, correct = _SumWithGradient.apply(rows, targets, block, at_once)
            return total, losses, correct
        # Trained weights behind the decoder need autograd's own graph: their logits are made again when it runs back.
        done = [
            checkpoint(block, part, target, use_reentrant=False) if torch.is_grad_enabled() else block(part, target)
            for part, target in zip(rows.split(at_once), targets.split(at_once), strict=True)
        ]
        losses = torch.cat([losses for losses, _ in done])
        return losses.sum(), losses.detach(), torch.cat([correct for _, correct in done])

    def _logits(self, rows: Tensor, decoded: Any) -> Tensor:
        """Return logits (tokens, vocabulary) of hidden states (tokens, hidden size)."""
        if self.way == "head":
            logits: Tensor = self._head.forward(rows)
            return logits
        stand_in = dataclasses.replace(decoded, last_hidden_state=rows[None])
        ids = torch.zeros(1, len(rows), dtype=torch.long, device=rows.device)
        with replaced(self._decoder, lambda *_, **__: stand_in):
            return self._causal.forward(input_ids=ids, use_cache=False).logits[0]  # type: ignore[no-any-return]


class _SumWithGradient(torch.autograd.Function):
    """Sum of the losses of all rows. Its gradient is made block by block together with the value, so that no logits
    have to be kept for the backward pass or made again in it.
    """

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, targets: Tensor, block: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], at_once: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        gradient = torch.empty_like(rows)
        losses = torch.empty(len(rows), dtype=torch.float32, device=rows.device)
        correct = torch.empty(len(rows), dtype=torch.bool, device=rows.device)
        for start in range(0, len(rows), at_once):
            here = slice(start, start + at_once)
            with torch.enable_grad():
                part = rows[here].detach().requires_grad_()
                found, correct[here] = block(part, targets[here])
                (gradient[here],) = torch.autograd.grad(found.sum(), part)
            losses[here] = found.detach()
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(losses, correct)
        return losses.sum(), losses, correct

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_total: Tensor, *_: Tensor) -> tuple[Tensor, None, None, None]:
        # The sum is linear in every loss, so the gradient made before is only scaled.
        (gradient,) = ctx.saved_tensors
        return of_total * gradient, None, None, None


@contextmanager
def replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Have the module compute by this function within the block."""
    own = module.__dict__.get("forward")  # a library's, such as accelerate's
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own


@contextmanager
def _outputs_of(module: nn.Module) -> Iterator[list[Any]]:
    """Give a list that gets whatever the module returns within the block."""
    outputs: list[Any] = []
    hook = module.register_forward_hook(lambda _module, _args, returned: outputs.append(returned))
    try:
        yield outputs
    finally:
        hook.remove()

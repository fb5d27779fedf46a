"""Which tokens of a batch can reach the loss of a causal language model, so that others need no circuits."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from qpeft.errors import AdapterError

NOT_TRAINED = -100
"""The label that transformers leaves out of the loss."""


def reachable_tokens(
    attention_mask: Tensor | None, labels: Int[Tensor, "batch sequence"]
) -> Bool[Tensor, "batch sequence"]:
    """Mask of the tokens whose hidden states can reach the loss.

    In a causal model the output at a position is compared with the label of the next, and depends on no later token.
    So a token matters if it is no padding and a trained label stands after it in its row. The answer holds for the
    usual loss, the cross-entropy of the labels; a loss that reads other outputs (router losses of mixtures of experts,
    distances to a reference model) reaches more. In packed rows it may include too much, never too little.

    Args:
        attention_mask: (batch, sequence), 0 at padding, on either side; None if there is none.
        labels: one per token, as transformers takes them: at a token's own position, -100 where nothing is trained.

    Returns:
        On the device of `labels`. Rows in which padding itself predicts a trained label (left padding, with a label on
        the first token) are all True: what a padding token attends to differs between implementations.

    Raises: AdapterError if the shapes are not (batch, sequence), both the same.
    """
    if labels.ndim != 2 or (attention_mask is not None and attention_mask.shape != labels.shape):
        mask = "none" if attention_mask is None else tuple(attention_mask.shape)
        raise AdapterError(
            f"Labels and attention mask are both (batch, sequence); got labels {tuple(labels.shape)}, mask {mask}."
        )
    trained = labels != NOT_TRAINED
    predicts = torch.nn.functional.pad(trained[:, 1:], (0, 1))
    reaches = predicts.flip(1).cummax(1).values.flip(1)
    if attention_mask is None:
        return reaches
    token = attention_mask.to(labels.device) != 0
    unclear = (predicts & ~token).any(1, keepdim=True)
    return reaches & token | unclear

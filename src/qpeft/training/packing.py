"""Batches of packed rows, in which no example sees another, and the check that a model keeps to that."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from qpeft.adapters.modes import evaluating
from qpeft.data import Encoded
from qpeft.data.encode import IGNORED
from qpeft.errors import RecipeError


class PackedCollator:
    """Tensors of packed rows: `input_ids`, `labels` and `position_ids`, (rows, longest), padded on the right.

    Positions begin at 0 in every example. There is no attention mask: from positions alone, and only without a mask,
    transformers lets each token attend to its own example.
    """

    def __call__(self, rows: Sequence[Encoded]) -> dict[str, Tensor]:
        shape = (len(rows), max(len(row.input_ids) for row in rows))
        batch = {"input_ids": torch.zeros(shape, dtype=torch.long), "labels": torch.full(shape, IGNORED)}
        # Padding is at position 0 throughout, so that each such token is an example of its own.
        batch["position_ids"] = torch.zeros(shape, dtype=torch.long)
        for number, row in enumerate(rows):
            end = len(row.input_ids)
            batch["input_ids"][number, :end] = torch.tensor(row.input_ids)
            batch["labels"][number, :end] = torch.tensor(row.labels)
            batch["position_ids"][number, :end] = torch.cat([torch.arange(length) for length in row.lengths])
        return batch


def require_separate_examples(model: PreTrainedModel) -> None:
    """Raises: RecipeError if a token of a packed example depends on the example before it in its row."""
    # Two rows of two examples; the second row's first example differs from the first row's.
    first = torch.tensor([[1, 2, 3, 1], [2, 3, 1, 3]])
    tokens = torch.cat([first, torch.tensor([[2, 1, 3, 2]]).expand(2, -1)], dim=1).to(model.device)
    positions = torch.arange(4, device=model.device).repeat(2).expand(2, -1)
    with evaluating(model):
        logits = model(input_ids=tokens, position_ids=positions, use_cache=False).logits[:, 4:].float()
    if (logits[0] - logits[1]).abs().max() > 1e-3 * logits.abs().max():
        attention = getattr(model.config, "_attn_implementation", "unknown")
        raise RecipeError(
            f"'training.packing': {model.config.model_type} with {attention} attention lets packed examples see each "
            "other, so their loss would be another one. Set training.packing: false."
        )

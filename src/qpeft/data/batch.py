"""Tensors of several encoded examples."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from qpeft.data.encode import IGNORED, Encoded


def pad_batch(rows: Sequence[Encoded], *, pad_token_id: int = 0, packed: bool = False) -> dict[str, Tensor]:
    """Return what a model is called with: `input_ids`, `labels` and one more, (rows, longest), padded on the right.

    Args:
        rows: examples, or packed rows of several.
        pad_token_id: what stands after the end of a row; a packed row has zeros there.
        packed: whether rows hold several examples. Then `position_ids` begin at 0 in every example and there is no
            `attention_mask`: from positions alone, and only without a mask, transformers lets each token attend to its
            own example.
    """
    shape = (len(rows), max(len(row.input_ids) for row in rows))
    ids = torch.full(shape, 0 if packed else pad_token_id)
    # In packed rows padding is at position 0 throughout, so that each such token is an example of its own.
    second, labels = torch.zeros(shape, dtype=torch.long), torch.full(shape, IGNORED)
    for number, row in enumerate(rows):
        end = len(row.input_ids)
        ids[number, :end] = torch.tensor(row.input_ids)
        labels[number, :end] = torch.tensor(row.labels)
        second[number, :end] = torch.cat([torch.arange(length) for length in row.lengths]) if packed else 1
    return {"input_ids": ids, "position_ids" if packed else "attention_mask": second, "labels": labels}

"""The check that no example of a packed row sees another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler
from transformers import PreTrainedModel
from transformers.trainer_pt_utils import get_length_grouped_indices

from qpeft.adapters.load import evaluating
from qpeft.errors import RecipeError


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


# The order of training examples, where it is not simply random.


class LengthGroupedSampler(Sampler[int]):
    """A random order in which examples of like length lie in the same batch.

    It depends on seed and epoch alone, so that a resumed run meets the same batches; that of transformers draws from
    the generator that dropout draws from too.
    """

    def __init__(self, lengths: Sequence[int], *, batch_size: int, seed: int) -> None:
        self._lengths, self._batch_size, self._seed = list(lengths), batch_size, seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate before each pass over the data."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed + self._epoch)
        yield from get_length_grouped_indices(self._lengths, self._batch_size, generator=generator)

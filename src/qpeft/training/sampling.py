"""The order of training examples, where it is not simply random."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices


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

"""Encoded examples as a data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qpeft.data.encode import Encoded

if TYPE_CHECKING:
    from datasets import Dataset


def to_dataset(encoded: Sequence[Encoded]) -> Dataset:
    """Columns `input_ids` and `labels`, which TRL's SFTTrainer takes with `skip_prepare_dataset`."""
    from datasets import Dataset  # noqa: PLC0415  (takes a second to import)

    return Dataset.from_dict(
        {"input_ids": [one.input_ids for one in encoded], "labels": [one.labels for one in encoded]}
    )

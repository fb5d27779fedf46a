"""The training and held-out examples of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from transformers import PreTrainedTokenizerBase

from qpeft.data import Encoded, Example, encode_all, hold_out, load_examples
from qpeft.training.config import DataSection


@dataclass(frozen=True)
class Split:
    """Examples, and the same as tokens and labels."""

    source: str
    examples: Sequence[Example]
    encoded: Sequence[Encoded]


def load_splits(data: DataSection, tokenizer: PreTrainedTokenizerBase) -> tuple[Split, Split | None]:
    """Training and held-out examples; None for the latter if the recipe names none. Raises: DataError."""
    read = partial(load_examples, prompt=data.prompt, response=data.response, system=data.system)
    training: Sequence[Example]
    held_out: Sequence[Example]
    if data.hold_out is not None:
        training, held_out = hold_out(read(data.train, split=data.split), data.hold_out)
        training, held_out = training[: data.limit], held_out[: data.eval_limit]
    else:
        training = read(data.train, split=data.split, limit=data.limit)
        held_out = read(data.eval, split=data.eval_split, limit=data.eval_limit) if data.eval else ()
    encode = partial(encode_all, tokenizer, max_length=data.max_length)
    first = Split(data.train, training, encode(training))
    return first, Split(data.eval or data.train, held_out, encode(held_out)) if held_out else None

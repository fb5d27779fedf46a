"""The training and held-out examples of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from transformers import PreTrainedTokenizerBase

from qpeft.data import Encoded, Example, encode_all, hold_out, load_examples, summarize
from qpeft.errors import DataError
from qpeft.training.sections import DataSection


@dataclass(frozen=True)
class Split:
    """Examples, and the same as tokens and labels; `too_long` of them were left out."""

    source: str
    examples: Sequence[Example]
    encoded: Sequence[Encoded]
    too_long: int = 0

    def __str__(self) -> str:
        left_out = f", {self.too_long:,} longer ones left out" if self.too_long else ""
        return f"{summarize(self.encoded)}{left_out}"


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
    encode = partial(_encode, data, tokenizer)
    return encode(data.train, training), encode(data.eval or data.train, held_out) if held_out else None


def _encode(data: DataSection, tokenizer: PreTrainedTokenizerBase, source: str, examples: Sequence[Example]) -> Split:
    if not data.drop_longer:
        return Split(source, examples, encode_all(tokenizer, examples, max_length=data.max_length))
    pairs = list(zip(examples, encode_all(tokenizer, examples), strict=True))
    kept = [pair for pair in pairs if len(pair[1].input_ids) <= data.max_length]
    if not kept:
        shortest = min(len(encoded.input_ids) for _, encoded in pairs)
        raise DataError(
            f"{source}: each of the {len(pairs):,} examples read is longer than max_length = {data.max_length} tokens; "
            f"the shortest has {shortest}. Raise max_length or the limit, or cut them off with drop_longer: false."
        )
    return Split(source, [one for one, _ in kept], [encoded for _, encoded in kept], too_long=len(pairs) - len(kept))

"""The training and held-out examples of a recipe."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from platformdirs import user_cache_path
from transformers import PreTrainedTokenizerBase

from qpeft.data import (
    Encoded,
    EncodingSummary,
    Example,
    Reader,
    choose_answers,
    encode_all,
    encode_each,
    hold_out_line,
    lengths,
    mix,
    split_digest,
    store_examples,
    summarize,
)
from qpeft.data.encode import lost_answers
from qpeft.data.rows import local_path
from qpeft.data.split import EVERYTHING
from qpeft.data.store import FORMAT
from qpeft.errors import DataError
from qpeft.runs import hash_file
from qpeft.training.sections import DataSection

ENCODED_AT_ONCE = 64
"""Examples, where not all may be needed."""


@dataclass(frozen=True)
class Split:
    """Examples as tokens and labels.

    Attributes:
        source: where they came from and how they were read.
        examples: the same as `encoded`, one to one; empty for a training split that is streamed.
        encoded: tokens and labels.
        summary: numbers of examples and tokens, and notes.
        digest: SHA-256 of the examples in their order.
    """

    source: str
    examples: Sequence[Example]
    encoded: Sequence[Encoded]
    summary: EncodingSummary
    digest: str

    def __str__(self) -> str:
        return str(self.summary)


class RecipeExamples:
    """The training and held-out examples of a recipe, read anew in every pass.

    Args:
        data: section of a recipe.
        seed: of the order of several sources.
        tokenizer: of the model, which says what is too long.

    Raises: DataError if a source cannot be read or the held-out part leaves nothing to train on.
    """

    def __init__(self, data: DataSection, *, seed: int, tokenizer: PreTrainedTokenizerBase) -> None:
        self._data, self._seed, self._tokenizer = data, seed, tokenizer
        self._training = [Reader(source) for source in data.training_sources]
        self._held_out = [Reader(source) for source in data.held_out_sources]
        self._line = ""
        amount = data.hold_out
        if amount is None:
            return
        # Examples are held out up to a digest: equal texts are on the same side of it, whatever their number and order.
        self._line = hold_out_line(chain(*self._training), amount)
        taken = int(amount)
        # A number of them is counted without those that are left out as too long, so the line moves on for these.
        while amount >= 1 and data.drop_longer and self._line != EVERYTHING:
            held = [one for one in chain(*self._training) if one.digest <= self._line]
            missing = int(amount) - self._count_kept(held)
            if missing <= 0:
                break
            taken += missing
            self._line = hold_out_line(chain(*self._training), taken)

    def training(self, *, once: bool = False) -> Iterator[Example]:
        """Give what is trained on, in an order that the seed decides if there are several sources.

        `once`: each example once, whatever the weights of sources.
        """
        mixed = mix([(reader, 1 if once else reader.source.weight) for reader in self._training], seed=self._seed)
        return self._choose((one for one in mixed if one.digest > self._line), self._data.limit)

    def held_out(self) -> list[Example]:
        """Return what is held out, up to the last example that counts; nothing if the recipe names nothing."""
        limit = self._data.eval_limit
        if self._held_out:
            examples: Iterator[Example] = chain(*self._held_out)
        else:
            examples = (one for one in chain(*self._training) if one.digest <= self._line) if self._line else iter(())
        if limit is None or not self._data.drop_longer:
            return list(self._choose(examples, limit))
        # An example that is left out as too long does not count as one of the first `eval_limit`.
        taken, kept = list[Example](), 0
        while kept < limit and (part := list(islice(examples, limit - kept))):
            taken += part
            kept += self._count_kept(part)
        return list(self._choose(iter(taken), None))

    def describe(self, *, held_out: bool = False) -> str:
        """Return the sources and how they are read: "data.jsonl, read as alpaca"."""
        readers = self._held_out if held_out and self._held_out else self._training
        return "; ".join(
            f"{reader.source.path}, read as {reader.row_format.title}"
            + (f", x{reader.source.weight:g}" if reader.source.weight != 1 else "")
            for reader in readers
        )

    def _count_kept(self, dialogues: Sequence[Example]) -> int:
        """Return how many of them have an example that is not left out as too long."""
        places, chosen = [], []
        for place, dialogue in enumerate(dialogues):
            for example in choose_answers(dialogue, self._data.answers):
                places.append(place)
                chosen.append(example)
        tokens = lengths(list(encode_each(self._tokenizer, chosen)))
        return len({place for place, count in zip(places, tokens, strict=True) if count <= self._data.max_length})

    def _choose(self, examples: Iterator[Example], limit: int | None) -> Iterator[Example]:
        for example in islice(examples, limit):
            yield from choose_answers(example, self._data.answers)


def load_splits(
    data: DataSection, tokenizer: PreTrainedTokenizerBase, *, seed: int = 0, keep_lost: bool = False
) -> tuple[Split, Split | None]:
    """Return training and held-out examples; None for the latter if the recipe names none.

    Args:
        data: section of a recipe.
        tokenizer: of its model.
        seed: of the order of several sources.
        keep_lost: whether answers may be wholly cut off, so that they can be counted. Nothing may train on these.

    Raises: DataError.
    """
    examples = RecipeExamples(data, seed=seed, tokenizer=tokenizer)
    held_out = _held_out(data, tokenizer, examples)
    training = (_stream if data.streaming else _load)(data, tokenizer, examples, seed)
    for split in filter(None, (held_out, training)):
        if not keep_lost and (fault := lost_in(split)) is not None:
            raise DataError(fault)
    return training, held_out


def load_held_out(data: DataSection, tokenizer: PreTrainedTokenizerBase) -> Split | None:
    """Return the held-out examples alone; None if the recipe names none. Raises: DataError."""
    held_out = _held_out(data, tokenizer, RecipeExamples(data, seed=0, tokenizer=tokenizer))
    if held_out is not None and (fault := lost_in(held_out)) is not None:
        raise DataError(fault)
    return held_out


def lost_in(split: Split) -> str | None:
    """Return a sentence about examples whose answers are wholly cut off; None if there are none."""
    lost = [one for one in split.encoded if one.lost is not None] if split.summary.lost else []
    return lost_answers(lost, len(split.encoded)) if lost else None


def load_calibration(data: DataSection, tokenizer: PreTrainedTokenizerBase, *, seed: int, tokens: int) -> list[Encoded]:
    """Return the first training examples up to a number of tokens; no others are encoded. Raises: DataError.

    Args:
        data: section of a recipe.
        tokenizer: of its model.
        seed: of the order of several sources.
        tokens: that they have together, at least, unless there are fewer.
    """
    examples = RecipeExamples(data, seed=seed, tokenizer=tokenizer)
    training, found, total = examples.training(), list[Encoded](), 0
    while total < tokens and (part := list(islice(training, ENCODED_AT_ONCE))):
        for _, encoded in _encode(data, tokenizer, part):
            if encoded.lost is not None:
                raise DataError(lost_answers([encoded], len(part)))
            if total < tokens:
                found.append(encoded)
                total += len(encoded.input_ids)
    if not found:
        raise DataError(
            f"{examples.describe()}: there is no example to calibrate on, or all are too long for "
            f"max_length = {data.max_length}: raise data.max_length or set data.drop_longer: false."
        )
    return found


def _held_out(data: DataSection, tokenizer: PreTrainedTokenizerBase, examples: RecipeExamples) -> Split | None:
    held_out = examples.held_out()
    if data.hold_out is not None and not held_out:
        raise DataError(f"{examples.describe()}: {data.hold_out:g} of it is no dialogue; hold out more.")
    return _split(data, tokenizer, examples.describe(held_out=True), held_out) if held_out else None


def _load(data: DataSection, tokenizer: PreTrainedTokenizerBase, examples: RecipeExamples, _: int) -> Split:
    training = list(examples.training())
    if not training and data.hold_out is None:
        raise DataError(f"{examples.describe()}: weights this small leave nothing to train on.")
    if not training:
        raise DataError(f"{examples.describe()}: {data.hold_out:g} cannot be held out with any left to train on.")
    return _split(data, tokenizer, examples.describe(), training)


def _stream(data: DataSection, tokenizer: PreTrainedTokenizerBase, examples: RecipeExamples, seed: int) -> Split:
    def encode(part: Sequence[Example]) -> tuple[list[Encoded], int]:
        pairs = _encode(data, tokenizer, part)
        return [encoded for _, encoded in pairs], len(part) - len(pairs)

    # In the user's cache, under a name that all that decides about the tokens has a part in.
    section = data.model_dump(mode="json", exclude={"eval", "eval_split", "eval_limit"})
    options = [FORMAT, seed, section, tokenizer.chat_template, tokenizer.bos_token]
    tokenization = tokenizer.backend_tokenizer.to_str() + str(tokenizer.eos_token)
    name = hashlib.sha256((json.dumps(options) + tokenization).encode()).hexdigest()[:24]
    folder = user_cache_path("qpeft", appauthor=False) / "data" / name
    stored = store_examples(examples.training(), encode, folder)
    return Split(examples.describe(), (), stored, stored.summary, stored.digest)


def _split(data: DataSection, tokenizer: PreTrainedTokenizerBase, source: str, examples: Sequence[Example]) -> Split:
    pairs = _encode(data, tokenizer, examples)
    if not pairs:
        shortest = min(len(encoded.input_ids) for encoded in encode_all(tokenizer, examples))
        raise DataError(
            f"{source}: each of the {len(examples):,} examples read is longer than max_length = {data.max_length} "
            f"tokens; the shortest has {shortest}. Raise data.max_length or the limit, or cut them off with "
            "data.drop_longer: false."
        )
    kept, encoded = [one for one, _ in pairs], [one for _, one in pairs]
    summary = summarize(encoded, left_out=len(examples) - len(pairs))
    return Split(source, kept, encoded, summary, split_digest(kept))


def _encode(
    data: DataSection, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]
) -> list[tuple[Example, Encoded]]:
    """Return each example that is kept with its tokens, also those whose answers are wholly cut off."""
    cut = None if data.drop_longer else data.max_length
    pairs = zip(examples, encode_each(tokenizer, examples, max_length=cut, keep_lost=True), strict=True)
    return [pair for pair in pairs if len(pair[1].input_ids) <= data.max_length]


def data_hashes(data: DataSection) -> dict[str, str | list[str]]:
    """Return the SHA-256 of the data files, in the recipe's order; a Hub name stands for itself."""
    hashes: dict[str, str | list[str]] = {}
    for name, sources in (("train", data.training_sources), ("eval", data.held_out_sources)):
        paths = [source.path for source in sources]
        found = [hash_file(local_path(path)) if local_path(path).is_file() else path for path in paths]
        if found:
            # A single file has no list, as records had it before recipes could name several.
            hashes[name] = found[0] if len(found) == 1 else found
    return hashes


def split_record(training: Split, held_out: Split | None) -> dict[str, dict[str, str | int]]:
    """Return what a record says of the splits: equal for equal examples in the same order."""
    splits = {"train": training} | ({"held_out": held_out} if held_out else {})
    return {
        name: {"source": split.source, "examples": len(split.encoded), "sha256": split.digest}
        for name, split in splits.items()
    }

"""Tokens and labels of dialogues: every assistant turn and its end-of-turn token is trained on, nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from qpeft.data.example import Example
from qpeft.data.turns import ChatTemplate
from qpeft.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
"""Label of a token that is not trained on; the value that torch's cross entropy skips."""

BATCH = 1000


@dataclass(frozen=True)
class Encoded:
    """Tokens of one example. `labels` equal `input_ids` where a token is trained on, else `IGNORED`.

    `cut`: tokens that did not fit in. `notes`: what a reader should know about the template's work, from `turns`.
    `lengths`: tokens of each example, where several are packed into one. `lost`: place of the first token that would be
    trained on, if all of them were cut off; else None.
    """

    input_ids: list[int]
    labels: list[int]
    cut: int
    notes: tuple[str, ...]
    source: str
    lengths: tuple[int, ...] = ()
    lost: int | None = None


def encode(tokenizer: PreTrainedTokenizerBase, example: Example, *, max_length: int | None = None) -> Encoded:
    """Return tokens and labels of one example. For many, `encode_all` is several times faster.

    Args:
        tokenizer, max_length: as in `encode_each`.
        example: a dialogue or plain text.
    """
    return encode_all(tokenizer, [example], max_length=max_length)[0]


def encode_all(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], *, max_length: int | None = None
) -> list[Encoded]:
    """Return tokens and labels of all examples, in their order.

    Args:
        tokenizer, max_length: as in `encode_each`.
        examples: at least one.

    Raises: DataError as `encode_each` does.
    """
    if not examples:
        raise DataError("No token is trained on: there are no examples.")
    return list(encode_each(tokenizer, examples, max_length=max_length))


def encode_each(
    tokenizer: PreTrainedTokenizerBase,
    examples: Iterable[Example],
    *,
    max_length: int | None = None,
    keep_lost: bool = False,
) -> Iterator[Encoded]:
    """Yield tokens and labels of examples as they come, in their order.

    Args:
        tokenizer: a fast tokenizer; for dialogues, with a chat template.
        examples: dialogues or plain text.
        max_length: keep this many tokens of each example and cut off the rest; None keeps all.
        keep_lost: whether examples may have their answer wholly cut off, as they are when they are counted.

    Raises: DataError if nothing of an example would be trained on; it names the first such example.
    """
    if not tokenizer.is_fast:
        raise DataError(f"{type(tokenizer).__name__} gives no offsets of its tokens; a fast tokenizer is needed.")
    if max_length is not None and max_length < 1:
        raise DataError(f"max_length must be at least 1, or None to cut nothing off; got {max_length}.")
    template, rest, cut_off, total = ChatTemplate(tokenizer), iter(examples), [], 0
    # Tokenizers are fast for many texts in one call.
    while batch := list(islice(rest, BATCH)):
        total += len(batch)
        texts = [template.render(example) for example in batch]
        tokens = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
        rows = zip(batch, texts, tokens["input_ids"], tokens["offset_mapping"], strict=True)
        for example, text, ids, offsets in rows:
            turns = template.find_turns(example, text)
            # Turns and tokens both run through the text from left to right, so each is looked at once.
            labels, following = [IGNORED] * len(ids), iter(turn for turn in turns if turn.trained)
            turn = next(following, None)
            for place, (start, end) in enumerate(offsets):
                while turn is not None and start >= turn.end:
                    turn = next(following, None)
                if turn is None:
                    break
                # A token that straddles the start of a turn is trained on: it carries the answer's first letters.
                # The first of all tokens never is, since nothing stands before it that could predict it.
                if place > 0 and end > turn.start:
                    labels[place] = ids[place]

            first = next((place for place, label in enumerate(labels) if label != IGNORED), len(labels))
            if first == len(labels):
                raise DataError(
                    f"{example.source}: no token is trained on; the tokenizer or the chat template leaves nothing of "
                    "the answer."
                )
            # A question that fills all the room leaves nothing to learn, which is counted or refused.
            kept = labels[:max_length]
            notes = tuple(dict.fromkeys(note for turn in turns for note in turn.notes))
            lost = first if first >= len(kept) else None
            one = Encoded(ids[:max_length], kept, len(labels) - len(kept), notes, example.source, lost=lost)
            if lost is not None:
                cut_off.append(one)
            yield one
    # At the end, so that the error can name the length that all of them need.
    if cut_off and not keep_lost:
        raise DataError(lost_answers(cut_off, total))


def lost_answers(encoded: Sequence[Encoded], total: int) -> str:
    """Return what is wrong with examples, among `total`, whose answers were wholly cut off, and what to do."""
    first, needed = encoded[0], max(one.lost or 0 for one in encoded) + 1
    return (
        f"{first.source}: answer wholly cut off: starts at token {first.lost}, max_length is {len(first.input_ids)} "
        f"({len(encoded)} of {total} examples). Raise data.max_length to {needed} or more, leave examples that are too "
        "long out by data.drop_longer: true, or shorten the data."
    )


@dataclass(frozen=True)
class EncodingSummary:
    """Numbers about encoded examples; tokens are counted after truncation.

    `truncated`: examples of which a part was cut off. `longest`: most tokens in one example. `left_out`: examples that
    were too long to be kept. `lost`: examples whose answers were wholly cut off. `notes`: remarks about what the chat
    template does, with the number of examples each holds for. Summaries of parts add up to that of the whole.
    """

    examples: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    truncated: int = 0
    longest: int = 0
    left_out: int = 0
    lost: int = 0
    notes: Mapping[str, int] = field(default_factory=dict)

    @property
    def trained_share(self) -> float:
        """Trained tokens over all tokens, in [0, 1]."""
        return self.trained_tokens / self.tokens

    def __add__(self, other: EncodingSummary) -> EncodingSummary:
        # Everything adds up but the longest.
        return EncodingSummary(
            self.examples + other.examples,
            self.tokens + other.tokens,
            self.trained_tokens + other.trained_tokens,
            self.truncated + other.truncated,
            max(self.longest, other.longest),
            self.left_out + other.left_out,
            self.lost + other.lost,
            Counter(self.notes) + Counter(other.notes),
        )

    def __str__(self) -> str:
        left_out = f", {self.left_out:,} longer ones left out" if self.left_out else ""
        lost = f", {self.lost:,} of which lose all of their answer" if self.lost else ""
        return (
            f"{self.examples:,} examples, {self.tokens:,} tokens, {self.trained_tokens:,} trained on "
            f"({self.trained_share:.1%}), longest {self.longest:,}, truncated {self.truncated:,}{lost}{left_out}"
        )


def summarize(encoded: Sequence[Encoded], *, left_out: int = 0) -> EncodingSummary:
    """Return the numbers of encoded examples, `left_out` of which were dropped before."""
    return EncodingSummary(
        examples=len(encoded),
        tokens=sum(len(one.input_ids) for one in encoded),
        trained_tokens=sum(len(one.labels) - one.labels.count(IGNORED) for one in encoded),
        truncated=sum(one.cut > 0 for one in encoded),
        longest=max((len(one.input_ids) for one in encoded), default=0),
        left_out=left_out,
        lost=sum(one.lost is not None for one in encoded),
        notes=Counter(note for one in encoded for note in one.notes),
    )

"""What to know of a data set before training on it: one sample, lengths, copies, held-out text trained on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from qpeft.data.encode import IGNORED, Encoded
from qpeft.data.example import Example

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text
    from transformers import PreTrainedTokenizerBase


PERCENTILES = (5, 25, 50, 75, 90, 95, 99, 100)
BARS = 12
BAR_WIDTH = 40
WORD = re.compile(r"\w+")
TRAINED_STYLE = "bold green"
OPENING, CLOSING = "[[", "]]"
CONTROL_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"}


@dataclass(frozen=True)
class Copies:
    """Numbers of examples that occur more than once.

    `exact`: equal to one before, or for held-out examples, to one that is trained on. `near`: equal but for case,
    punctuation and spaces, without the exact ones. `first`: where the first of either stands; None without any.
    """

    exact: int
    near: int
    first: str | None

    def __str__(self) -> str:
        where = f", first at {self.first}" if self.first else ""
        return f"{self.exact:,} exact, {self.near:,} but for case, punctuation and spaces{where}"


def find_copies(training: Iterable[Example], held_out: Sequence[Example]) -> tuple[Copies, Copies]:
    """Count copies within the training examples, and held-out examples that are also trained on.

    Takes about 200 bytes of memory for each training example.
    """
    exact: set[int] = set()
    near: set[int] = set()
    found = []
    for examples in (training, held_out):
        num_exact, num_near, first = 0, 0, None
        for example in examples:
            # Hashes and not texts, so that sets larger than memory can be looked at.
            key = int(example.digest[:16], 16)
            words = hash(tuple(tuple(WORD.findall(message.content.casefold())) for message in example.messages))
            is_exact, is_near = key in exact, words in near
            num_exact, num_near = num_exact + is_exact, num_near + (is_near and not is_exact)
            first = first or (example.source if is_exact or is_near else None)
            # Held-out examples are compared with those trained on, and not with each other.
            if examples is training:
                exact.add(key)
                near.add(words)
        found.append(Copies(num_exact, num_near, first))
    return found[0], found[1]


def length_tables(lengths: Sequence[int], max_length: int) -> tuple[Table, Table]:
    """Return percentiles and a histogram of tokens per example, before any are cut off; at least one example."""
    from rich.table import Table  # noqa: PLC0415

    ordered = sorted(lengths)
    percentiles = Table(*(f"{share} %" for share in PERCENTILES), title="tokens of an example, percentiles")
    # Of nearest rank: the smallest length that this many percent of the examples do not exceed.
    percentiles.add_row(*(f"{ordered[-(-share * len(ordered) // 100) - 1]:,}" for share in PERCENTILES))
    # -(-a // b) is a / b rounded up, in whole numbers.
    span = ordered[-1] - ordered[0] + 1
    width = -(-span // BARS)
    counts = [0] * -(-span // width)
    for length in lengths:
        counts[(length - ordered[0]) // width] += 1
    histogram = Table("tokens", "examples", "")
    for number, count in enumerate(counts):
        first = ordered[0] + number * width
        last = first + width - 1
        mark = f"  max_length {max_length:,}" if first <= max_length <= last else ""
        histogram.add_row(f"{first:,}-{last:,}", f"{count:,}", "#" * -(-BAR_WIDTH * count // max(counts)) + mark)
    return percentiles, histogram


def render_sample(tokenizer: PreTrainedTokenizerBase, encoded: Encoded) -> Text:
    """Return the text of an example; what is trained on is green and, for terminals without colour, in double brackets.

    Control characters of the data are shown as pictures, so that they cannot move the cursor.
    """
    from rich.text import Text  # noqa: PLC0415

    text = Text()
    labelled = zip(encoded.input_ids, encoded.labels, strict=True)
    for trained, run in groupby(labelled, key=lambda pair: pair[1] != IGNORED):
        words = str(tokenizer.decode([token for token, _ in run], clean_up_tokenization_spaces=False))
        words = words.translate(CONTROL_PICTURES)
        text.append(f"{OPENING}{words}{CLOSING}" if trained else words, style=TRAINED_STYLE if trained else "dim")
    if encoded.cut:
        text.append(f"\n({encoded.cut} more tokens are cut off)", style="yellow")
    return text

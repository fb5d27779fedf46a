"""What a training run would see: how many tokens, how many of them trained on, how much was cut off."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from qpeft.data.encode import IGNORED, Encoded


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
    """The numbers of encoded examples."""
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

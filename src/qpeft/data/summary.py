"""What a training run would see: how many tokens, how many of them trained on, how much was cut off."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qpeft.data.encode import IGNORED, Encoded


@dataclass(frozen=True)
class EncodingSummary:
    """Numbers about encoded examples; tokens are counted after truncation.

    `truncated`: examples of which a part was cut off. `longest`: most tokens in one example.
    `notes`: remarks about what the chat template does, with the number of examples each holds for.
    """

    examples: int
    tokens: int
    trained_tokens: int
    truncated: int
    longest: int
    notes: Mapping[str, int]

    @property
    def trained_share(self) -> float:
        """Trained tokens over all tokens, in [0, 1]."""
        return self.trained_tokens / self.tokens

    def __str__(self) -> str:
        return (
            f"{self.examples:,} examples, {self.tokens:,} tokens, {self.trained_tokens:,} trained on "
            f"({self.trained_share:.1%}), longest {self.longest:,}, truncated {self.truncated:,}"
        )


def summarize(encoded: Sequence[Encoded]) -> EncodingSummary:
    """The numbers of at least one encoded example."""
    return EncodingSummary(
        examples=len(encoded),
        tokens=sum(len(one.input_ids) for one in encoded),
        trained_tokens=sum(label != IGNORED for one in encoded for label in one.labels),
        truncated=sum(one.cut > 0 for one in encoded),
        longest=max(len(one.input_ids) for one in encoded),
        notes=Counter(note for one in encoded for note in one.notes),
    )

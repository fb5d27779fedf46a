"""An example: one dialogue, with the row it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Message:
    """One turn of a dialogue. `role` is one of `ROLES`; `content` is never blank."""

    role: str
    content: str


@dataclass(frozen=True)
class Example:
    """A dialogue with at least one assistant turn.

    `messages` ends with an assistant turn. `row`: the row of the data set as it was read, for scoring.
    `source`: where the row stands, as "file:line" or "name, row n".
    """

    messages: tuple[Message, ...]
    row: Mapping[str, object]
    source: str

    @property
    def question(self) -> tuple[Message, ...]:
        """The messages before the last answer: what a model is given when this example is scored."""
        return self.messages[:-1]

    @property
    def answer(self) -> str:
        """The text of the last assistant turn."""
        return self.messages[-1].content

"""An example: one dialogue or plain text, with the row it was made from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

ROLES = ("system", "user", "assistant")
Answers = Literal["all", "last", "each"]


@dataclass(frozen=True)
class Message:
    """One turn of a dialogue. `role` is one of `ROLES`; `content` is never blank.

    `trained`: whether the turn, if it is the assistant's, is trained on.
    """

    role: str
    content: str
    trained: bool = True


@dataclass(frozen=True)
class Example:
    """A dialogue with at least one assistant turn that is trained on.

    `messages` ends with an assistant turn. `row`: the row of the data set as it was read, for scoring.
    `source`: where the row stands, as "file:line" or "name, row n". `is_plain`: the one message is text that goes to
    the model without a chat template, and all of it is trained on.
    """

    messages: tuple[Message, ...]
    row: Mapping[str, object]
    source: str
    is_plain: bool = False

    @property
    def question(self) -> tuple[Message, ...]:
        """Return the messages before the last answer: what a model is given when this example is scored."""
        return self.messages[:-1]

    @property
    def opening(self) -> str:
        """Return the first question: the first user's text, or all of a plain text."""
        return next((message.content for message in self.messages if message.role == "user"), self.messages[0].content)

    @property
    def answer(self) -> str:
        """Return the text of the last assistant turn."""
        return self.messages[-1].content

    @cached_property
    def digest(self) -> str:
        """SHA-256 of roles and texts, hexadecimal: equal for equal dialogues, wherever they stand."""
        # Separators that no text of a chat holds, so that no two dialogues join to the same string.
        text = "\x1e".join(f"{message.role}\x1f{message.content}" for message in self.messages)
        return hashlib.sha256(text.encode()).hexdigest()


def choose_answers(example: Example, answers: Answers) -> Iterator[Example]:
    """Yield the example with the answers that are to be trained on.

    Args:
        example: a dialogue; plain text comes back as it is.
        answers: "all" in one example; only the "last"; or "each" in an example of its own that ends with it, as the
            model will meet it, also where the chat template rewrites answers that others follow.
    """
    if answers == "all" or example.is_plain:
        yield example
        return
    trained = [i for i, message in enumerate(example.messages) if message.role == "assistant" and message.trained]
    for place in trained if answers == "each" else trained[-1:]:
        # Earlier answers stay as context, and are trained on in examples of their own or not at all.
        before = (replace(message, trained=False) for message in example.messages[:place])
        yield replace(example, messages=(*before, example.messages[place]))

"""Which answers of a dialogue are trained on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from qpeft.data.example import Example

Answers = Literal["all", "last", "each"]


def choose_answers(example: Example, answers: Answers) -> Iterator[Example]:
    """The example with the answers that are to be trained on.

    Args:
        example: a dialogue; plain text comes back as it is.
        answers: "all" in one example; only the "last"; or "each" in an example of its own that ends with it, as the
            model will meet it, also where the chat template rewrites answers that others follow.
    """
    trained = [i for i, message in enumerate(example.messages) if message.role == "assistant" and message.trained]
    if answers == "all" or example.is_plain:
        yield example
        return
    for place in trained if answers == "each" else trained[-1:]:
        before = (replace(message, trained=False) for message in example.messages[:place])
        yield replace(example, messages=(*before, example.messages[place]))

"""Where the assistant's turns stand in a rendered dialogue, for any chat template, with or without generation marks.

Nothing is assumed about the template but that it prints an answer as one piece. To find that piece, the dialogue is
rendered once more with a placeholder in its place: what stands before and after the placeholder also stands before and
after the answer. Unlike comparing rendered prefixes, this holds where a template rewrites earlier turns (DeepSeek-R1).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from qpeft.data.example import Example, Message
from qpeft.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REWRITTEN = "the chat template rewrites an answer, for instance drops its <think> part; what it prints is trained on"
UNENDED = "the chat template puts no end-of-turn token after an answer, so the model does not learn to stop"
UNPROMPTED = "the generation prompt of the chat template ends in text that the training dialogue does not have there"


@dataclass(frozen=True)
class Turn:
    """One assistant turn: characters [start, end) of the rendered text, its end-of-turn token included."""

    start: int
    end: int
    notes: tuple[str, ...]


def render(tokenizer: PreTrainedTokenizerBase, example: Example) -> str:
    """The whole dialogue as text by the tokenizer's chat template.

    Raises: DataError if there is no chat template, or it refuses the dialogue.
    """
    return _render(tokenizer, example.messages, example.source)


def find_turns(tokenizer: PreTrainedTokenizerBase, example: Example, text: str) -> list[Turn]:
    """The assistant turns in `text`, the rendered dialogue of `example`.

    A turn starts where the generation prompt ends, so that an empty thinking block that the template prints before an
    answer is trained on as it will be generated; it ends after its end-of-turn token, before a line break after that.

    Raises: DataError if an answer cannot be found in the text because the template does not print it as one piece.
    """
    messages = example.messages
    places = [i for i, message in enumerate(messages) if message.role == "assistant"]
    return [_turn(tokenizer, messages, place, text, example.source) for place in places]


def _turn(
    tokenizer: PreTrainedTokenizerBase, messages: tuple[Message, ...], place: int, text: str, source: str
) -> Turn:
    placeholder = next(mark for number in count() if (mark := f"\ue000{number}\ue001") not in text)
    marked = [*messages[:place], Message("assistant", placeholder), *messages[place + 1 :]]
    before, *after = _render(tokenizer, marked, source).split(placeholder)
    if len(after) != 1 or not text.endswith(after[0]):
        raise DataError(f"{source}: the chat template does not print the answer of turn {place + 1} as one piece.")
    prompt = _render(tokenizer, messages[:place], source, generation=True) if place > 0 else before
    prompted = text.startswith(prompt)
    if not prompted and not text.startswith(before):
        raise DataError(f"{source}: the text before the answer of turn {place + 1} changes with the answer.")
    start, answer_end = len(prompt if prompted else before), len(text) - len(after[0])
    ending = _end_of_turn(tokenizer, after[0])
    claims = {
        REWRITTEN: messages[place].content.strip() not in text[start:answer_end],
        UNENDED: not ending,
        UNPROMPTED: not prompted,
    }
    return Turn(start, answer_end + ending, tuple(note for note, holds in claims.items() if holds))


def _end_of_turn(tokenizer: PreTrainedTokenizerBase, after: str) -> int:
    """Number of characters up to the end of the special token that `after` starts with; 0 if it starts with none."""
    tokens = sorted(tokenizer.all_special_tokens, key=len, reverse=True)
    found = re.match(rf"\s*(?:{'|'.join(map(re.escape, tokens))})", after) if tokens else None
    return found.end() if found else 0


def _render(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], source: str, *, generation: bool = False
) -> str:
    from jinja2 import TemplateError  # noqa: PLC0415

    if not tokenizer.chat_template:
        raise DataError("The tokenizer has no chat template. Set model.chat_template to one, or use an instruct model.")
    dialogue = [{"role": message.role, "content": message.content} for message in messages]
    try:
        text = tokenizer.apply_chat_template(dialogue, tokenize=False, add_generation_prompt=generation)
    except (TemplateError, TypeError, ValueError) as error:
        raise DataError(f"{source}: the chat template refuses the dialogue: {error}") from error
    return str(text)

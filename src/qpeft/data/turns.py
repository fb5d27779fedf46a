"""Where the assistant's turns stand in a rendered dialogue, for any chat template, with or without generation marks.

Nothing is assumed about the template but that it prints an answer as one piece. To find that piece, the dialogue is
rendered once more with a placeholder in its place: what stands before and after the placeholder also stands before and
after the answer. Unlike comparing rendered prefixes, this holds where a template rewrites earlier turns (DeepSeek-R1).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import TYPE_CHECKING

from qpeft.data.example import Example, Message
from qpeft.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REWRITTEN = "the chat template rewrites an answer, for instance drops its <think> part; what it prints is trained on"
SHORTENED = (
    "the chat template rewrites an answer once others follow it, for instance drops its <think> part; such answers are "
    "not trained on (data.answers: each trains on all)"
)
UNENDED = "no end-of-turn token follows an answer, so the model does not learn to stop"
MARK_LENGTH = 3
"""Characters of ordinary text after an answer that are taken for an end of turn: fewer, such as a full stop, also stand
inside answers."""
UNPROMPTED = "the generation prompt of the chat template ends in text that the training dialogue does not have there"


@dataclass(frozen=True)
class Turn:
    """One assistant turn: characters [start, end) of the rendered text, its end-of-turn token included.

    `trained`: whether the model should learn to say it. `ending`: the end-of-turn token as text, with space
    before it; "" without one.
    """

    start: int
    end: int
    notes: tuple[str, ...]
    trained: bool = True
    ending: str = ""


class ChatTemplate:
    """Dialogues as text by the chat template of a tokenizer, and where the assistant's turns stand in that text.

    Text without a template stands for itself, between the tokens that the tokenizer begins and ends texts with.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        # Longest first, so that a token that begins with another one is found. Not only those called special:
        # "<|im_end|>" is an ordinary added token in some models.
        added = sorted(added_tokens(tokenizer), key=len, reverse=True)
        # Some tokenizers name a first token that they do not put before a text, such as SmolLM2's.
        begun = list(tokenizer("a")["input_ids"][:1]) == [tokenizer.bos_token_id]
        self._start = str(tokenizer.bos_token) if begun else ""
        self._ending = re.compile(rf"\s*(?:{'|'.join(map(re.escape, added))})") if added else None

    def render(self, example: Example) -> str:
        """Return the whole dialogue as text. Raises: DataError without a template, or if it refuses the dialogue."""
        if not example.is_plain:
            return self._render(example.messages, example.source)
        # Text that already has the tokenizer's first or last token does not get it twice.
        start, end, text = self._start, self._tokenizer.eos_token or "", example.answer
        return f"{'' if text.startswith(start) else start}{text}{'' if text.endswith(end) else end}"

    def find_turns(self, example: Example, text: str) -> list[Turn]:
        """Return the assistant turns in `text`, the rendered dialogue of `example`, that are marked for training.

        A turn starts where the generation prompt ends, so that an empty thinking block which the template prints before
        an answer is trained on as it will be generated; it ends after its end-of-turn token, before a line break. An
        answer of which the template drops a part only once others follow is not trained on: the model, when it is to
        give that answer, is at the end of the dialogue.

        Raises: DataError if an answer cannot be found in the text because the template does not print it as one piece.
        """
        if example.is_plain:
            ending = str(self._tokenizer.eos_token or "")
            return [Turn(0, len(text), () if ending else (UNENDED,), ending=ending)]
        messages, source, found = example.messages, example.source, []
        for place, message in enumerate(messages):
            if message.role != "assistant" or not message.trained:
                continue
            # Characters of private use, numbered in case the text has such a mark already.
            placeholder = next(mark for number in count() if (mark := f"\ue000{number}\ue001") not in text)
            marked = [*messages[:place], Message("assistant", placeholder), *messages[place + 1 :]]
            before, *after = self._render(marked, source).split(placeholder)
            name = f"the answer of turn {place + 1}"
            if len(after) != 1 or not text.endswith(after[0]):
                raise DataError(f"{source}: the chat template does not print {name} as one piece.")
            prompt = self._render(messages[:place], source, generation=True) if place > 0 else before
            prompted = text.startswith(prompt)
            if not prompted and not text.startswith(before):
                raise DataError(f"{source}: the chat template changes what stands before {name}.")

            start, answer_end = len(prompt if prompted else before), len(text) - len(after[0])
            token = self._ending.match(after[0]) if self._ending else None
            ending = token[0] if token else self._written_ending if after[0].startswith(self._written_ending) else ""
            answer = message.content.strip()
            rewritten = answer not in text[start:answer_end]
            # Printed whole when it is the last, and not here: it is rewritten only because others follow.
            if rewritten and place + 1 < len(messages) and answer in self._render(messages[: place + 1], source):
                found.append(Turn(start, answer_end, (SHORTENED,), trained=False))
                continue
            claims = {REWRITTEN: rewritten, UNENDED: not ending, UNPROMPTED: not prompted}
            notes = tuple(note for note, holds in claims.items() if holds)
            found.append(Turn(start, answer_end + len(ending), notes, ending=ending))
        return found

    @cached_property
    def _written_ending(self) -> str:
        """Return the mark in ordinary text that the template prints after every answer, last or not; "" without one.

        Such as ChatML's, for a tokenizer to which its tokens were never added.
        """
        question, placeholder = Message("user", "\ue000"), "\ue001"
        exchange = [question, Message("assistant", placeholder)]
        try:
            last = self._render(exchange, "a dialogue").split(placeholder)
            earlier = self._render([*exchange, *exchange], "a dialogue").split(placeholder)
        except DataError:
            return ""
        mark = last[-1].rstrip() if (len(last), len(earlier)) == (2, 3) else ""
        return mark if len(mark.strip()) >= MARK_LENGTH and earlier[1].startswith(mark) else ""

    def _render(self, messages: Sequence[Message], source: str, *, generation: bool = False) -> str:
        if not self._tokenizer.chat_template:
            raise DataError("The tokenizer has no chat template: set model.chat_template, or use an instruct model.")
        dialogue = [{"role": message.role, "content": message.content} for message in messages]
        try:
            text = self._tokenizer.apply_chat_template(dialogue, tokenize=False, add_generation_prompt=generation)
        except Exception as error:  # a template is a program: it may divide by zero
            raise DataError(f"{source}: the chat template refuses the dialogue: {error}.") from error
        return str(text)


def added_tokens(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    """Return the tokens that are found in a text before it is split into any others."""
    return {*tokenizer.get_added_vocab(), *tokenizer.all_special_tokens}

"""Answers that are shown while they are made, and dialogues that fit what the model can read at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.generation.streamers import BaseStreamer

from qpeft.adapters.load import evaluating
from qpeft.data import AnswerEnds, Message, answer_ends
from qpeft.errors import DataError
from qpeft.evaluation.generation import prompts, stopping
from qpeft.models.reading import reading


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen: the most likely one at temperature 0, else drawn.

    `temperature`: divides the logits. `top_p`: draw among the likeliest tokens that hold this probability together.
    `top_k`: draw among so many of the likeliest; 0 for all.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0

    def arguments(self) -> dict[str, Any]:
        """What `model.generate` calls it."""
        if self.temperature == 0:
            return {"do_sample": False}
        return {"do_sample": True, "temperature": self.temperature, "top_p": self.top_p, "top_k": self.top_k}


class ShownText(BaseStreamer):
    """Gives text on as the model makes it. `text`: all of it so far. `ends`: where it ends, set before it begins."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, on_text: Callable[[str], None]) -> None:
        self.text = ""
        self.ends = AnswerEnds((), (), "")
        self._tokenizer, self._on_text = tokenizer, on_text
        self._tokens: list[int] | None = None

    def put(self, value: torch.Tensor) -> None:
        """Take the prompt, which comes first, and then each token."""
        if self._tokens is None:
            self._tokens = []
            return
        self._tokens += value.flatten().tolist()
        text, has_ended = self._decoded()
        # The last character may lack some of its bytes, which then come with the next token.
        self._show(text if has_ended else text[: len(text) - self._held_back(text)].rstrip("\ufffd"))

    def end(self) -> None:
        """Show what was held back."""
        self._show(self._decoded()[0])

    def _decoded(self) -> tuple[str, bool]:
        said, at_token = self.ends.cut(self._tokens or [])
        text, at_text = self.ends.cut_text(str(self._tokenizer.decode(said, skip_special_tokens=True)))
        return text.lstrip(), at_token or at_text

    def _held_back(self, text: str) -> int:
        """Characters at the end of a text that may be the beginning of an end."""
        lengths = (
            length for end in self.ends.texts for length in range(len(end), 0, -1) if text.endswith(end[:length])
        )
        return max(lengths, default=0)

    def _show(self, text: str) -> None:
        if len(text) > len(self.text):
            new, self.text = text[len(self.text) :], text
            self._on_text(new)


def stream_answer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    streamer: ShownText,
    *,
    max_new_tokens: int,
    sampling: Sampling,
) -> None:
    """Answer one dialogue; the text goes to `streamer` as it is made, and stays there if this is interrupted.

    Args:
        model: with or without an adapter.
        tokenizer: with the chat template.
        messages: of the dialogue so far.
        streamer: gets the text.
        max_new_tokens: of the answer.
        sampling: temperature and what is drawn among.
    """
    batch = tokenizer(prompts(tokenizer, [messages]), add_special_tokens=False, return_tensors="pt")
    _require_known(model, tokenizer, batch["input_ids"][0].tolist(), "The question")
    streamer.ends = answer_ends(tokenizer, model.generation_config)
    with evaluating(model):
        model.generate(
            **batch.to(next(model.parameters()).device),
            max_new_tokens=max_new_tokens,
            streamer=streamer,
            **stopping(tokenizer, streamer.ends, batch["input_ids"].shape[1]),
            **sampling.arguments(),
        )


def context_length(model: PreTrainedModel) -> int | None:
    """Tokens that a model reads at once, prompt and answer together; None if it says nothing of a limit."""
    return reading(model).made_for


def require_room(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Sequence[Message]],
    sources: Sequence[str],
    *,
    max_new_tokens: int,
) -> None:
    """Args:
        model: that will answer.
        tokenizer: with the chat template.
        questions: dialogues that end with a question.
        sources: where each question comes from, for the error.
        max_new_tokens: of the longest answer.

    Raises: DataError if a question and the longest answer are more than the model reads at once, or a question has a
    token that the model does not know; it names whose.
    """
    if not questions:
        return
    context, texts = context_length(model), prompts(tokenizer, questions)
    for source, ids in zip(sources, tokenizer(texts, add_special_tokens=False)["input_ids"], strict=True):
        _require_known(model, tokenizer, ids, f"{source}: the question")
        if context is not None and len(ids) + max_new_tokens > context:
            raise DataError(
                f"{source}: the question has {len(ids):,} tokens, and the model reads {context:,} at once, an answer "
                f"of up to {max_new_tokens:,} included. Shorten it, or lower --max-new-tokens (in a recipe: "
                "evaluation.max_new_tokens)."
            )


def _require_known(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], what: str) -> None:
    known = reading(model)
    if max(ids, default=0) >= known.tokens:
        raise DataError(
            f"{what} has a token that the model does not have: {known.unknown_token(tokenizer, max(ids))}. Take the "
            "tokenizer and chat template that belong to the model."
        )


def fitting(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, room: int | None
) -> tuple[list[Message], int]:
    """A dialogue without the oldest exchanges that are too much, and how many messages those were.

    Args:
        tokenizer: with a chat template.
        messages: a system message or none, then turns of user and assistant, the user's last.
        room: tokens that the prompt may have; None for no limit.

    Raises: DataError if not even the last question fits.
    """
    first = [message for message in messages[:1] if message.role == "system"]
    turns = list(messages[len(first) :])
    while room is not None:
        tokens = len(tokenizer(prompts(tokenizer, [[*first, *turns]]), add_special_tokens=False)["input_ids"][0])
        if tokens <= room:
            break
        if len(turns) < 3:
            raise DataError(
                f"The question has {tokens:,} tokens with all that stands around it, and {max(room, 0):,} fit in front "
                "of the longest answer. Shorten it, or lower --max-new-tokens."
            )
        del turns[:2]
    return [*first, *turns], len(messages) - len(first) - len(turns)

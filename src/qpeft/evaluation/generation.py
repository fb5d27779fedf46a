"""Answers of a model to chat messages: greedily in batches, or one that is shown while it is made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from qpeft.adapters.load import evaluating
from qpeft.data import AnswerEnds, Message, answer_ends
from qpeft.errors import DataError
from qpeft.models.reading import reading

BATCH_SIZE = 16


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Sequence[Message]],
    *,
    max_new_tokens: int,
    batch_size: int = BATCH_SIZE,
    on_batch: Callable[[int], None] = lambda _: None,
    on_cut: Callable[[int], None] = lambda _: None,
) -> list[str]:
    """Return the most likely answer to each question, in their order.

    Args:
        model: a causal language model, with or without adapters.
        tokenizer: its tokenizer, with a chat template.
        questions: messages of one dialogue each, up to where the assistant is to speak.
        max_new_tokens: where an answer is cut off that has not ended by itself.
        batch_size: questions answered at once.
        on_batch: told after each batch how many questions were answered in it.
        on_cut: told the place of each answer that had not ended by itself.

    Returns:
        The answers' text, without special tokens and without the end of turn that the chat template prints.

    Raises: DataError if the chat template refuses a question.
    """
    device = next(model.parameters()).device
    asked, ends = prompts(tokenizer, questions), answer_ends(tokenizer, model.generation_config)
    answers = [""] * len(asked)
    # Questions of like length together, so that little is padding.
    order = sorted(range(len(asked)), key=lambda index: len(asked[index]))
    with evaluating(model):
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            # Special tokens are in the text, and padding goes where nothing is generated.
            batch = tokenizer(
                [asked[index] for index in chosen],
                add_special_tokens=False,
                padding=True,
                padding_side="left",
                return_tensors="pt",
            ).to(device)
            length = batch["input_ids"].shape[1]
            tokens: torch.Tensor = model.generate(
                **batch, max_new_tokens=max_new_tokens, do_sample=False, **_stopping(tokenizer, ends, length)
            )
            for index, answered in zip(chosen, tokens[:, length:].tolist(), strict=True):
                said, at_token = ends.cut(answered)
                text, at_text = ends.cut_text(tokenizer.decode(said, skip_special_tokens=True))
                answers[index] = text.strip()
                # Where nobody knows of an end, no answer counts as cut off.
                if (ends.tokens or ends.texts) and not (at_token or at_text):
                    on_cut(index)
            on_batch(len(chosen))
    return answers


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen: the most likely one at temperature 0, else drawn.

    `temperature`: divides the logits. `top_p`: draw among the likeliest tokens that hold this probability together.
    `top_k`: draw among this many of the likeliest; 0 for all.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0


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
        if not has_ended:
            # The last characters may begin the text of an end, which is not shown once it is whole.
            begun = (size for end in self.ends.texts for size in range(len(end), 0, -1) if text.endswith(end[:size]))
            # And the very last may lack some of its bytes, which then come with the next token.
            text = text[: len(text) - max(begun, default=0)].rstrip("\ufffd")
        self._show(text)

    def end(self) -> None:
        """Show what was held back."""
        self._show(self._decoded()[0])

    def _decoded(self) -> tuple[str, bool]:
        said, at_token = self.ends.cut(self._tokens or [])
        text, at_text = self.ends.cut_text(str(self._tokenizer.decode(said, skip_special_tokens=True)))
        return text.lstrip(), at_token or at_text

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

    Raises: DataError if the model lacks a token of the question.
    """
    batch = tokenizer(prompts(tokenizer, [messages]), add_special_tokens=False, return_tensors="pt")
    _require_known(model, tokenizer, batch["input_ids"][0].tolist(), "The question")
    streamer.ends = answer_ends(tokenizer, model.generation_config)
    # transformers warns of a temperature that has no effect, so none is given where nothing is drawn.
    choosing = {"do_sample": True, **vars(sampling)} if sampling.temperature else {"do_sample": False}
    with evaluating(model):
        model.generate(
            **batch.to(next(model.parameters()).device),
            max_new_tokens=max_new_tokens,
            streamer=streamer,
            **_stopping(tokenizer, streamer.ends, batch["input_ids"].shape[1]),
            **choosing,
        )


def _stopping(tokenizer: PreTrainedTokenizerBase, ends: AnswerEnds, prompt_length: int) -> dict[str, Any]:
    """Arguments that make `model.generate` stop where answers end, behind prompts of this many tokens."""
    arguments: dict[str, Any] = {"eos_token_id": list(ends.tokens) or None, "pad_token_id": tokenizer.pad_token_id}
    if ends.texts:
        arguments["stopping_criteria"] = StoppingCriteriaList([_AtTexts(tokenizer, ends.texts, prompt_length)])
    return arguments


class _AtTexts(StoppingCriteria):
    """Stops each row as soon as one of these texts is in what was generated.

    Tokens at its borders may hold other characters too, so that no sequence of tokens stands for a text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], prompt_length: int) -> None:
        self._tokenizer, self._texts, self._prompt_length = tokenizer, texts, prompt_length
        # No token is less than a byte; one more on either side may hold a part of one.
        self._reach = max(len(text.encode()) for text in texts) + 2

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:  # noqa: ARG002
        start = max(self._prompt_length, input_ids.shape[1] - self._reach)
        latest = self._tokenizer.batch_decode(input_ids[:, start:])
        done = [any(text in one for text in self._texts) for one in latest]
        return torch.tensor(done, device=input_ids.device)


def prompts(tokenizer: PreTrainedTokenizerBase, questions: Sequence[Sequence[Message]]) -> list[str]:
    """Return what a model reads before it answers each question; special tokens are in the text.

    Raises: DataError if the chat template refuses a question, or there is no template.
    """
    try:
        return [
            tokenizer.apply_chat_template(
                [{"role": message.role, "content": message.content} for message in question],
                tokenize=False,
                add_generation_prompt=True,
            )
            for question in questions
        ]
    except Exception as error:  # a template is a program: it may divide by zero
        raise DataError(f"The chat template refuses the dialogue: {' '.join(str(error).split())}") from error


def context_length(model: PreTrainedModel) -> int | None:
    """Return the tokens that a model reads at once, prompt and answer together; None if it says nothing of a limit."""
    return reading(model).made_for


def require_room(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Sequence[Message]],
    sources: Sequence[str],
    *,
    max_new_tokens: int,
) -> None:
    """Check that the model can read every question together with the longest answer, and has all its tokens.

    Args:
        model: that will answer.
        tokenizer: with the chat template.
        questions: dialogues that end with a question.
        sources: where each question comes from, for the error.
        max_new_tokens: of the longest answer.

    Raises: DataError, which names the question.
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
    # Beyond the embedding, a GPU fails with an assertion that names nothing.
    known = reading(model)
    if max(ids, default=0) >= known.tokens:
        raise DataError(
            f"{what} has a token that the model does not have: {known.unknown_token(tokenizer, max(ids))}. Take the "
            "tokenizer and chat template that belong to the model."
        )


def fitting(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, room: int | None
) -> tuple[list[Message], int]:
    """Return a dialogue without the oldest exchanges that are too much, and how many messages those were.

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
        # A question goes with its answer: templates want user and assistant by turns.
        del turns[:2]
    return [*first, *turns], len(messages) - len(first) - len(turns)

"""Answers of a model to chat messages, greedily and in batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList

from qpeft.adapters.load import evaluating
from qpeft.data import AnswerEnds, Message, answer_ends
from qpeft.errors import DataError

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
    """The most likely answer to each question, in their order.

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
    order = sorted(range(len(asked)), key=lambda index: len(asked[index]))
    with evaluating(model):
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = tokenizer(
                [asked[index] for index in chosen],
                add_special_tokens=False,
                padding=True,
                padding_side="left",
                return_tensors="pt",
            ).to(device)
            length = batch["input_ids"].shape[1]
            tokens: torch.Tensor = model.generate(
                **batch, max_new_tokens=max_new_tokens, do_sample=False, **stopping(tokenizer, ends, length)
            )
            for index, answered in zip(chosen, tokens[:, length:].tolist(), strict=True):
                said, at_token = ends.cut(answered)
                text, at_text = ends.cut_text(tokenizer.decode(said, skip_special_tokens=True))
                answers[index] = text.strip()
                # A model that knows of no end is not told that it was cut off.
                if (ends.tokens or ends.texts) and not (at_token or at_text):
                    on_cut(index)
            on_batch(len(chosen))
    return answers


def stopping(tokenizer: PreTrainedTokenizerBase, ends: AnswerEnds, prompt_length: int) -> dict[str, Any]:
    """What makes `model.generate` stop where answers end, behind prompts of so many tokens.

    Args:
        tokenizer: that decodes what was generated.
        ends: tokens and texts at which answers end.
        prompt_length: tokens that every row begins with.
    """
    arguments: dict[str, Any] = {
        "eos_token_id": list(ends.tokens) or None,
        "pad_token_id": tokenizer.pad_token_id,
    }
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
    """What a model reads before it answers each question; special tokens are in the text.

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

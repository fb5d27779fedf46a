"""Answers of a model to chat messages, greedily and in batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from qpeft.data import Message
from qpeft.errors import DataError
from qpeft.evaluation.modes import evaluating

BATCH_SIZE = 16


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Sequence[Message]],
    *,
    max_new_tokens: int,
    batch_size: int = BATCH_SIZE,
    on_batch: Callable[[int], None] = lambda _: None,
) -> list[str]:
    """The most likely answer to each question, in their order.

    Args:
        model: a causal language model, with or without adapters.
        tokenizer: its tokenizer, with a chat template.
        questions: messages of one dialogue each, up to where the assistant is to speak.
        max_new_tokens: where an answer is cut off that has not ended by itself.
        batch_size: questions answered at once.
        on_batch: told after each batch how many questions were answered in it.

    Returns:
        The answers' text, without special tokens.

    Raises: DataError if the chat template refuses a question.
    """
    device = next(model.parameters()).device
    asked = prompts(tokenizer, questions)
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
            tokens: torch.Tensor = model.generate(
                **batch, max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id
            )
            texts = tokenizer.batch_decode(tokens[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
            for index, text in zip(chosen, texts, strict=True):
                answers[index] = text.strip()
            on_batch(len(chosen))
    return answers


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

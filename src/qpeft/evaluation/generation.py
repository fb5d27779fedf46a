"""Answers of a model to chat messages, greedily and in batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from qpeft.adapters.modes import evaluating
from qpeft.data import Message
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
            answered = tokens[:, batch["input_ids"].shape[1] :]
            texts = tokenizer.batch_decode(answered, skip_special_tokens=True)
            for index, text, ended in zip(chosen, texts, _have_ended(model, answered), strict=True):
                answers[index] = text.strip()
                if not ended:
                    on_cut(index)
            on_batch(len(chosen))
    return answers


def _have_ended(model: PreTrainedModel, answered: torch.Tensor) -> list[bool]:
    """Whether each row of tokens holds one that ends an answer; all rows have, where the model knows of none."""
    ends = model.generation_config.eos_token_id
    if ends is None:
        return [True] * len(answered)
    marks = torch.tensor(ends, device=answered.device).reshape(-1)
    found: list[bool] = torch.isin(answered, marks).any(1).tolist()
    return found


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

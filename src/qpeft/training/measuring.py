"""What is measured of the model before and after training."""

from __future__ import annotations

from typing import Any

from peft import PeftModel
from rich.console import Console
from transformers import PreTrainedTokenizerBase

from qpeft.evaluation import Scores, score
from qpeft.training.memory import evaluation_memory
from qpeft.training.sections import Recipe
from qpeft.training.splits import Split

SAMPLES = 5
"""Generated answers kept in the record."""


def measure(
    recipe: Recipe,
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    held_out: Split | None,
    console: Console,
    when: str,
) -> dict[str, Any] | None:
    """Scores on the held-out examples, for the record, and said; None without any. Raises: MemoryLimitError."""
    if held_out is None:
        return None
    options = recipe.evaluation
    with console.status(f"measuring {when} training"), evaluation_memory(recipe):
        scores = score(
            model,
            tokenizer,
            held_out.examples,
            held_out.encoded,
            exact_match=options.exact_match,
            max_new_tokens=options.max_new_tokens,
            items=options.items,
        )
    console.print(f"{when}: {describe(scores)}")
    return scores.to_dict() | {"samples": [vars(answer) for answer in scores.answers[:SAMPLES]]}


def describe(scores: Scores) -> str:
    """Scores in one line."""
    matched = f", exact match {scores.exact_match:.1%} of {len(scores.answers)}" if scores.answers else ""
    return f"held-out loss {scores.loss:.4f} over {scores.tokens:,} tokens{matched}"

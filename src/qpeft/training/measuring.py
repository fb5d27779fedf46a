"""What is measured of the model before and after training."""

from __future__ import annotations

from typing import Any

from peft import PeftModel
from rich.console import Console
from transformers import PreTrainedTokenizerBase

from qpeft.evaluation import Scores, find_task, score
from qpeft.runs.bars import Bars
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
    with Bars(console) as bars, evaluation_memory(recipe):
        scores = score(
            model,
            tokenizer,
            held_out.examples,
            held_out.encoded,
            task=find_task(options.task_name) if options.task_name else None,
            max_new_tokens=options.max_new_tokens,
            items=options.items,
            on_progress=bars.of(when),
        )
    console.print(f"{when}: {describe(scores)}")
    return scores.to_dict() | {"samples": [vars(answer) for answer in scores.answers[:SAMPLES]]}


def describe(scores: Scores) -> str:
    """Scores in one line."""
    loss = f"held-out loss {scores.loss:.4f} over {scores.tokens:,} tokens"
    if scores.task is None:
        return loss
    titles = {**scores.task.overall_metrics, **scores.task.metrics}
    figures = [f"{titles[name]} {value:.1%}" for name, value in scores.metrics.items()]
    cut = f", {scores.cut} of them cut off" if scores.cut else ""
    return f"{', '.join([loss, *figures])} of {len(scores.answers)} answers{cut}"

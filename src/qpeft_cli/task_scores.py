"""Scores on lm-eval tasks as `qpeft eval` prints them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from qpeft.evaluation.harness import TaskScore, evaluate_with_harness
from qpeft_cli.adapted import BASE, Adapted


def print_task_scores(
    adapted: Adapted,
    tasks: Sequence[str],
    *,
    task_folder: Path | None,
    few_shot: int | None,
    chat: bool,
    items: int | None,
    base: bool,
    console: Console,
) -> None:
    """A table of every metric, with the standard error over items.

    Args:
        adapted: the model.
        tasks: names, as lm-eval has them.
        task_folder: with further task files.
        few_shot: solved examples in each prompt; None for the task's own number.
        chat: whether to ask through the chat template.
        items: the first so many of each task; None for all.
        base: whether the base model is asked too.
        console: where the table goes.

    Raises: TaskError or DataError.
    """
    # It warns that settings for models it loads itself have no effect on ours.
    logging.getLogger("lm_eval.models.huggingface").setLevel(logging.ERROR)
    columns: dict[str, tuple[TaskScore, ...]] = {}
    for name in adapted.names(base):
        with adapted.without_adapter(name == BASE):
            columns[name] = evaluate_with_harness(
                adapted.model,
                adapted.tokenizer,
                tasks,
                task_folder=task_folder,
                few_shot=few_shot,
                chat=chat,
                items=items,
            )
    table = Table("task", "metric", "answer filter", "few-shot", "items", *columns)
    for row in zip(*columns.values(), strict=True):
        first = row[0]
        table.add_row(
            first.task,
            first.metric,
            first.answer_filter,
            "-" if first.few_shot is None else str(first.few_shot),
            "-" if first.items is None else f"{first.items:,}",
            *map(_with_error, row),
        )
    console.print(table)


def _with_error(score: TaskScore) -> str:
    error = "" if score.standard_error is None else f" ± {score.standard_error:.4f}"
    return f"{score.value:.4f}{error}"

"""Scores on tasks of EleutherAI's lm-evaluation-harness (lm-eval), through its Python API.

Its own command line cannot load our adapters: PEFT learns of them when `qpeft` is imported, and nothing in lm-eval
imports it. A model that is loaded already has no such trouble.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase
from yaml import YAMLError

from qpeft.adapters.load import evaluating
from qpeft.data import answer_ends
from qpeft.data.turns import added_tokens
from qpeft.errors import DataError, QpeftError, TaskError

MAX_REASON = 600


@dataclass(frozen=True)
class TaskScore:
    """One metric of one task, or of a group of tasks.

    `answer_filter`: how lm-eval took the answer out of the text, "none" if it did not. `standard_error`: over items;
    None where lm-eval has none. `items`: how many were scored; None for a group. `few_shot`: solved examples in each
    prompt; None for a group whose tasks differ.
    """

    task: str
    metric: str
    answer_filter: str
    value: float
    standard_error: float | None
    items: int | None
    few_shot: int | None


def evaluate_with_harness(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[str],
    *,
    task_folder: Path | None = None,
    few_shot: int | None = None,
    chat: bool = False,
    items: int | None = None,
    batch_size: int = 8,
) -> tuple[TaskScore, ...]:
    """Return a model's scores on lm-eval tasks, in the order in which lm-eval gives them.

    Answers stop where the chat template ends a turn, beside where the task stops them. lm-eval seeds the global
    generators of Python, NumPy and torch, so that few-shot examples are the same every time.

    Args:
        model: a causal language model with or without adapters, on its device; its mode is as before afterwards.
        tokenizer: its tokenizer.
        tasks: names of tasks, groups or tags, lm-eval's own or from `task_folder`.
        task_folder: folder with further task files (YAML); a task there replaces lm-eval's of the same name.
        few_shot: solved examples in each prompt; None leaves it to the task.
        chat: whether prompts go through the chat template, as those that adapters are trained on do.
        items: score only the first so many of each task.
        batch_size: requests at once.

    Raises:
        TaskError: lm-eval is not installed, has no task of a name, or cannot read or score a task.
        DataError: `chat` without a chat template.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise TaskError('Tasks are scored by lm-eval, which is not installed: pip install "qpeft[eval]".')
    if chat and tokenizer.chat_template is None:
        raise DataError("The tokenizer has no chat template; leave chat out, or load the tokenizer with one.")
    from datasets.exceptions import DatasetsError  # noqa: PLC0415
    from jinja2 import TemplateError  # noqa: PLC0415
    from lm_eval import simple_evaluate  # noqa: PLC0415

    # Also checks the names, with a hint at the nearest.
    manager = _task_manager(tasks, task_folder)
    try:
        with evaluating(model):
            results = simple_evaluate(
                _harness_model(model, tokenizer, batch_size),
                tasks=list(tasks),
                num_fewshot=few_shot,
                apply_chat_template=chat,
                limit=items,
                task_manager=manager,
                log_samples=False,
            )
    except QpeftError:
        raise
    except (OSError, ValueError, KeyError, TypeError, DatasetsError, YAMLError, TemplateError) as error:
        reason = " ".join(str(error).split())[:MAX_REASON]
        raise TaskError(
            f"{', '.join(tasks)} cannot be scored, most likely for the task's file or data: "
            f"{type(error).__name__}: {reason}"
        ) from error
    scores = []
    for task, figures in results["results"].items():
        counted = results["n-samples"].get(task)
        for key, value in figures.items():
            # Keys are "metric,filter"; "alias" and standard errors stand beside them.
            metric, comma, answer_filter = key.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, (int, float)):
                continue
            deviation = figures.get(f"{metric}_stderr,{answer_filter}")
            scores.append(
                TaskScore(
                    task=task,
                    metric=metric,
                    answer_filter=answer_filter,
                    value=float(value),
                    # "N/A" where lm-eval has none.
                    standard_error=float(deviation) if isinstance(deviation, (int, float)) else None,
                    items=None if counted is None else counted["effective"],
                    few_shot=results["n-shot"].get(task),
                )
            )
    return tuple(scores)


def _harness_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_size: int) -> Any:
    """Return lm-eval's model, which stops where answers end, as our own commands do."""
    from lm_eval.models.huggingface import HFLM  # noqa: PLC0415

    ends = answer_ends(tokenizer, model.generation_config)
    # Not of ordinary tokens, which a model with a wrong end of text may name.
    marks = [*ends.texts, *({*tokenizer.convert_ids_to_tokens(list(ends.tokens))} & added_tokens(tokenizer))]

    class Stopping(HFLM):
        def _model_generate(self, *args: Any, stop: list[str], **options: Any) -> Any:
            stops = {"eos_token_id": list(ends.tokens)} if ends.tokens else {}
            return super()._model_generate(*args, stop=[*stop, *ends.texts], **(stops | options))

        def generate_until(self, *args: Any, **options: Any) -> list[str]:
            texts = []
            # Stopping may come a token late, and the mark itself is not part of an answer.
            for text in super().generate_until(*args, **options):
                place = min((text.find(mark) for mark in marks if mark in text), default=None)
                texts.append(text if place is None else text[:place].rstrip())
            return texts

    return Stopping(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)


def _task_manager(tasks: Sequence[str], folder: Path | None) -> Any:
    """Return lm-eval's index of tasks."""
    from lm_eval.tasks import TaskManager  # noqa: PLC0415

    if folder is not None:
        if not folder.is_dir():
            raise TaskError(f"There is no folder {folder} to read tasks from.")
        # Its own ten thousand files take seconds, so they are left out if nobody needs them.
        own = TaskManager(include_path=str(folder), include_defaults=False)
        if set(tasks) <= set(own.all_subtasks):
            return own
    manager = TaskManager(include_path=None if folder is None else str(folder))
    for task in tasks:
        if task not in manager.all_tasks:
            near = get_close_matches(task, manager.all_tasks, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ". Its names: lm-eval ls tasks."
            raise TaskError(f"lm-eval has no task {task!r}{hint}")
    return manager

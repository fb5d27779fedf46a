"""Held-out loss and answers to a task, as `qpeft eval` prints and stores them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from qpeft.data.fields import PairTemplate
from qpeft.data.rows import read_rows
from qpeft.errors import DataError, OutputError
from qpeft.evaluation import AbstractTask, Scores, find_task, score
from qpeft.evaluation.dialogue import context_length
from qpeft.evaluation.statistics import sign_test
from qpeft.models.reading import reading
from qpeft.runs import environment, make_folder, write_atomically
from qpeft.runs.bars import Bars
from qpeft.training.readable import unreadable
from qpeft.training.sections import DataSection
from qpeft.training.splits import Split, data_hashes, load_held_out
from qpeft_cli.adapted import ADAPTED, BASE, Adapted, read_recipe, weight_hashes

FOLDER = "evaluations"


@dataclass(frozen=True)
class WantedScores:
    """What `qpeft eval` was asked for; its options are described there."""

    folder: Path
    data: str | None
    task: str | None
    items: int | None
    max_new_tokens: int | None
    base: bool
    output: Path | None


def print_scores(wanted: WantedScores, load: Callable[[], Adapted], console: Console) -> None:
    """Measure held-out examples, those of the run or of `wanted.data`.

    Args:
        wanted: options.
        load: gives the adapter on its base model; not called for a task that cannot be.
        console: where results go.

    Raises: DataError if there are none, or the task cannot be asked of them; TaskError; OutputError.
    """
    task = None if wanted.task is None else find_task(wanted.task)
    if task is not None:
        task.require_packages()
    adapted = load()
    options = _data(adapted, wanted)
    held_out = load_held_out(options, adapted.tokenizer) if options.eval or options.hold_out else None
    if held_out is None:
        raise DataError(
            "The training run held no examples out, so there are none to measure; name a file of them with --data."
        )
    known = reading(adapted.model, adapted.recipe.model.name)
    if (fault := unreadable(known, adapted.tokenizer, held_out.encoded)) is not None:
        raise DataError(fault)
    path = None
    if wanted.task is not None or wanted.output is not None:
        console.print(f"{held_out.source}: {held_out}")
        path = result_file(wanted.folder, wanted.task or "held_out", wanted.output)
    found = {}
    for name in adapted.names(wanted.base):
        with adapted.without_adapter(name == BASE):
            found[name] = _score(adapted, held_out, task, wanted, name)
    console.print(_table(found, task))
    if task is not None and wanted.base and task.tells_right:
        console.print(_changes(found, next(iter(task.metrics.values()))))
    if path is not None:
        write_json(path, _record(adapted, wanted, options, held_out, task, found))
        console.print(f"results are in {path}")


def _data(adapted: Adapted, wanted: WantedScores) -> DataSection:
    """The run's data section, with `wanted.data` held out in place of its own."""
    options = adapted.recipe.data
    changes: dict[str, Any] = {}
    if wanted.data is not None:
        # Read like the held-out file of the run: with its templates, and nothing left out.
        changes = {"train": wanted.data, "hold_out": None, "eval": wanted.data, "eval_limit": None}
    if wanted.task is not None:
        # A cut-off example is another task than everybody else's, and it is the task that says which turns are asked.
        longest = context_length(adapted.model) or options.max_length
        changes |= {"max_length": longest, "drop_longer": True, "answers": "all"}
        if wanted.data is not None and not _templates_fit(options, wanted.data):
            changes |= {"prompt": None, "response": None, "format": None}
    return options.model_copy(update=changes)


def _templates_fit(options: DataSection, data: str) -> bool:
    """Whether a file of questions has the columns that the run's templates name."""
    if options.prompt is None or options.response is None:
        return options.format is None
    first = next(iter(read_rows(data, split=options.eval_split)), None)
    columns = PairTemplate(options.prompt, options.response).columns
    return first is not None and all(column in first.values for column in columns)


def _score(adapted: Adapted, held_out: Split, task: AbstractTask | None, wanted: WantedScores, name: str) -> Scores:
    with Bars(Console(stderr=True)) as bars:
        return score(
            adapted.model,
            adapted.tokenizer,
            held_out.examples,
            held_out.encoded,
            task=task,
            items=wanted.items,
            max_new_tokens=_longest(adapted, wanted),
            on_progress=bars.of(name),
        )


def _longest(adapted: Adapted, wanted: WantedScores) -> int | None:
    """As asked for; else, for the run's own task, as in the run; else the task's own."""
    own = adapted.recipe.evaluation
    return wanted.max_new_tokens or (own.max_new_tokens if own.task_name == wanted.task else None)


def _table(found: Mapping[str, Scores], task: AbstractTask | None) -> Table:
    titles = {**task.overall_metrics, **task.metrics} if task else {}
    table, models = Table("", *found), found.values()
    table.add_row("held-out loss", *(f"{scores.loss:.4f}" for scores in models))
    table.add_row("perplexity", *(f"{scores.perplexity:.3f}" for scores in models))
    table.add_row("tokens", *(f"{scores.tokens:,}" for scores in models))
    for metric, title in titles.items():
        table.add_row(title, *(f"{scores.metrics[metric]:.1%}" for scores in models))
    if task is not None:
        table.add_row("answered", *(f"{len(scores.answers):,}" for scores in models))
        table.add_row("cut off", *(f"{scores.cut:,}" for scores in models))
    return table


def _changes(found: Mapping[str, Scores], metric: str) -> str:
    """What the adapter changed, answer by answer."""
    before, after = (np.array([one.right for one in found[name].answers], dtype=float) for name in (BASE, ADAPTED))
    gained, lost = int((after > before).sum()), int((after < before).sum())
    return (
        f"{metric}: {gained} answers are right with the adapter alone and {lost} without it alone "
        f"(exact sign test: p = {sign_test(after - before):.3g})"
    )


def result_file(folder: Path, name: str, output: Path | None) -> Path:
    """Where results go: `output`, or a new file in the adapter's folder.

    Args:
        folder: of the adapter.
        name: of the task, which new files are called by.
        output: that the user named; None for a new file in the folder.

    Raises: OutputError if they cannot.
    """
    path = output or folder / FOLDER / f"{name}-{datetime.now():%Y%m%d-%H%M%S}.json"
    if path.exists():
        raise OutputError(f"{path} exists. Choose another --output; nothing was changed.")
    make_folder(path.parent)
    return path


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write results. Raises: OutputError if the disk refuses."""
    write_atomically(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def origin_record(folder: Path) -> dict[str, Any]:
    """Which adapter on which model, where and when."""
    return {
        "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "adapter": {"folder": str(folder), **weight_hashes(folder)},
        "model": read_recipe(folder).model.model_dump(mode="json"),
        "environment": environment(),
    }


def _record(
    adapted: Adapted,
    wanted: WantedScores,
    options: DataSection,
    held_out: Split,
    task: AbstractTask | None,
    found: Mapping[str, Scores],
) -> dict[str, Any]:
    origin = origin_record(wanted.folder)
    origin["environment"]["versions"] |= task.versions() if task else {}
    hashes = data_hashes(options)
    return origin | {
        "task": wanted.task,
        "data": {
            "source": held_out.source,
            "file": hashes.get("eval", hashes["train"]),
            "examples": len(held_out.examples),
            "left_out": held_out.summary.left_out,
            "sha256": held_out.digest,
        },
        "items": wanted.items,
        "max_new_tokens": (_longest(adapted, wanted) or task.max_new_tokens) if task else None,
        "results": {
            name: scores.to_dict() | {"answers": [vars(answer) for answer in scores.answers]}
            for name, scores in found.items()
        },
    }

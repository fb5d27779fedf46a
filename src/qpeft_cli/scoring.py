"""What `qpeft eval` prints and stores: held-out loss and answers, tasks of lm-eval, and marks of a judge."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from qpeft.data import Example, Message, choose_answers
from qpeft.data.fields import PairTemplate
from qpeft.data.rows import read_rows
from qpeft.errors import DataError, OutputError, TaskError
from qpeft.evaluation import Scores, find_task, generate, score
from qpeft.evaluation.generation import BATCH_SIZE, context_length, require_room
from qpeft.evaluation.harness import evaluate_with_harness
from qpeft.evaluation.judge import KEY_VARIABLE, Judge, VerdictFile, judge_reply
from qpeft.evaluation.statistics import sign_test
from qpeft.evaluation.tasks.cpsycoune import LARGEST, WORDING, averages, read_cases
from qpeft.models.reading import reading
from qpeft.runs import environment, make_folder, write_atomically
from qpeft.runs.bars import Bars
from qpeft.runs.files import GrowingFile, used_alone
from qpeft.training.readable import unreadable
from qpeft.training.sections import DataSection
from qpeft.training.splits import data_hashes, load_held_out
from qpeft_cli.adapted import ADAPTED, BASE, Adapted, read_recipe, weight_hashes
from qpeft_cli.on_device import agree_to_texts

FOLDER = "evaluations"
JUDGED_TOKENS = 256
"""Longest reply that is judged, unless the user says otherwise."""
NOTICE = (
    "{url} (model {model}) gets the talks of {data} ({cases} in all), turn by turn, with what your model replies: "
    "{requests:,} requests, fewer where it judged the same before, more where it gives no marks."
)
LEAVING = (
    " These texts leave this machine: whoever runs that server can read and keep them, and may charge for the answers."
)
UNENCRYPTED = " They travel unencrypted."


@dataclass(frozen=True)
class Evaluation:
    """What `qpeft eval` was asked for; its options are described there."""

    folder: Path
    data: str | None
    task: str | None
    items: int | None
    max_new_tokens: int | None
    base: bool
    output: Path | None
    load: Callable[[], Adapted]
    console: Console


def print_scores(wanted: Evaluation) -> None:
    """Measure held-out examples, those of the run or of `wanted.data`.

    Raises: DataError if there are none, or the task cannot be asked of them; TaskError; OutputError.
    """
    # Before the model is loaded, which takes long.
    task = None if wanted.task is None else find_task(wanted.task)
    if task is not None:
        task.require_packages()
    adapted, console = wanted.load(), wanted.console
    data = _held_out_data(adapted, wanted)
    held_out = load_held_out(data, adapted.tokenizer) if data.eval or data.hold_out else None
    if held_out is None:
        raise DataError(
            "The training run held no examples out, so there are none to measure; name a file of them with --data."
        )
    known = reading(adapted.model, adapted.recipe.model.name)
    if (fault := unreadable(known, adapted.tokenizer, held_out.encoded)) is not None:
        raise DataError(fault)
    # A loss alone is soon measured again; answers are stored, since they cost much more.
    path = None
    if wanted.task is not None or wanted.output is not None:
        console.print(f"{held_out.source}: {held_out}")
        path = _result_file(wanted, wanted.task or "held_out")

    # The run's own task is answered at the length of the run, so that figures compare with its record.
    own = adapted.recipe.evaluation
    longest = wanted.max_new_tokens or (own.max_new_tokens if own.task_name == wanted.task else None)
    found: dict[str, Scores] = {}
    for name in adapted.names(wanted.base):
        with adapted.without_adapter(name == BASE), Bars(Console(stderr=True)) as bars:
            found[name] = score(
                adapted.model,
                adapted.tokenizer,
                held_out.examples,
                held_out.encoded,
                task=task,
                items=wanted.items,
                max_new_tokens=longest,
                on_progress=bars.of(name),
            )

    table, models = Table("", *found), found.values()
    table.add_row("held-out loss", *(f"{scores.loss:.4f}" for scores in models))
    table.add_row("perplexity", *(f"{scores.perplexity:.3f}" for scores in models))
    table.add_row("tokens", *(f"{scores.tokens:,}" for scores in models))
    if task is not None:
        for metric, title in {**task.overall_metrics, **task.metrics}.items():
            table.add_row(title, *(f"{scores.metrics[metric]:.1%}" for scores in models))
        table.add_row("answered", *(f"{len(scores.answers):,}" for scores in models))
        table.add_row("cut off", *(f"{scores.cut:,}" for scores in models))
    console.print(table)
    if task is not None and wanted.base and task.tells_right:
        # Answers to the same questions: only those on which the two differ tell anything.
        before, after = (np.array([one.right for one in found[name].answers], dtype=float) for name in (BASE, ADAPTED))
        console.print(
            f"{next(iter(task.metrics.values()))}: {int((after > before).sum())} answers are right with the adapter "
            f"alone and {int((after < before).sum())} without it alone (exact sign test: p = "
            f"{sign_test(after - before):.3g})"
        )
    if path is None:
        return
    # With rows held out of the training file, that file is what the examples came from.
    hashes = data_hashes(data)
    record = {
        "task": wanted.task,
        "data": {
            "source": held_out.source,
            "file": hashes.get("eval", hashes["train"]),
            "examples": len(held_out.examples),
            "left_out": held_out.summary.left_out,
            "sha256": held_out.digest,
        },
        "items": wanted.items,
        "max_new_tokens": (longest or task.max_new_tokens) if task else None,
        "results": {
            name: scores.to_dict() | {"answers": [vars(answer) for answer in scores.answers]}
            for name, scores in found.items()
        },
    }
    _store(wanted, path, record, task.versions() if task else {})


def _held_out_data(adapted: Adapted, wanted: Evaluation) -> DataSection:
    """Return the run's data section, with `wanted.data` held out in place of its own."""
    options = adapted.recipe.data
    changes: dict[str, Any] = {}
    if wanted.data is not None:
        # Read like the held-out file of the run: with its templates, and nothing left out.
        changes = {"train": wanted.data, "hold_out": None, "eval": wanted.data, "eval_limit": None}
    if wanted.task is not None:
        # A cut-off example is another task than everybody else's, and it is the task that says which turns are asked.
        longest = context_length(adapted.model) or options.max_length
        changes |= {"max_length": longest, "drop_longer": True, "answers": "all"}
    if wanted.task is not None and wanted.data is not None:
        # A benchmark's file need not have the columns that the run's templates name.
        if options.prompt is None or options.response is None:
            fits = options.format is None
        else:
            first = next(iter(read_rows(wanted.data, split=options.eval_split)), None)
            columns = PairTemplate(options.prompt, options.response).columns
            fits = first is not None and all(column in first.values for column in columns)
        if not fits:
            changes |= {"prompt": None, "response": None, "format": None}
    return options.model_copy(update=changes)


def _result_file(wanted: Evaluation, name: str) -> Path:
    """Return where results go: the user's file, or a new one in the adapter's folder. Raises: OutputError."""
    # A file of figures is never overwritten: they may be all that is left of hours on a large model.
    path = wanted.output or wanted.folder / FOLDER / f"{name}-{datetime.now():%Y%m%d-%H%M%S}.json"
    if path.exists():
        raise OutputError(f"{path} exists. Choose another --output; nothing was changed.")
    make_folder(path.parent)
    return path


def _store(wanted: Evaluation, path: Path, record: dict[str, Any], versions: Mapping[str, str]) -> None:
    """Write results with what they were computed by. Raises: OutputError if the disk refuses."""
    # Figures of another version of a grading package need not compare, so it is named with them.
    around = environment()
    around["versions"] |= versions
    origin: dict[str, Any] = {
        "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "adapter": {"folder": str(wanted.folder), **weight_hashes(wanted.folder)},
        "model": read_recipe(wanted.folder).model.model_dump(mode="json"),
        "environment": around,
    }
    write_atomically(path, json.dumps(origin | record, indent=2, ensure_ascii=False) + "\n")
    wanted.console.print(f"results are in {path}")


def print_harness_scores(
    wanted: Evaluation, tasks: Sequence[str], *, task_folder: Path | None, few_shot: int | None, chat: bool
) -> None:
    """Print a table of every metric of lm-eval's tasks, with the standard error over items.

    Args:
        wanted: options of the command.
        tasks: names, as lm-eval has them.
        task_folder: with further task files.
        few_shot: solved examples in each prompt; None for the task's own number.
        chat: whether to ask through the chat template.

    Raises: TaskError or DataError.
    """
    adapted = wanted.load()
    # It warns that settings for models it loads itself have no effect on ours.
    logging.getLogger("lm_eval.models.huggingface").setLevel(logging.ERROR)
    found = {}
    for name in adapted.names(wanted.base):
        # One loaded model for both: lm-eval alone would load the base model a second time.
        with adapted.without_adapter(name == BASE):
            found[name] = evaluate_with_harness(
                adapted.model,
                adapted.tokenizer,
                tasks,
                task_folder=task_folder,
                few_shot=few_shot,
                chat=chat,
                items=wanted.items,
            )
    table = Table("task", "metric", "answer filter", "few-shot", "items", *found)
    for row in zip(*found.values(), strict=True):
        first = row[0]
        few = "-" if first.few_shot is None else str(first.few_shot)
        counted = "-" if first.items is None else f"{first.items:,}"
        values = [
            f"{one.value:.4f}" + ("" if one.standard_error is None else f" ± {one.standard_error:.4f}") for one in row
        ]
        table.add_row(first.task, first.metric, first.answer_filter, few, counted, *values)
    wanted.console.print(table)


def print_judged(wanted: Evaluation, *, url: str | None, model: str | None, yes: bool) -> None:
    """Generate replies in counselling talks (CPsyCounE), have them judged, print the marks and store everything.

    Args:
        wanted: options of the command; the model is loaded after the user agreed.
        url: address of the judge's server.
        model: its name there.
        yes: whether the user agreed already that texts go there.

    Raises: TaskError, DataError; DeviceError if the user does not agree that texts are sent.
    """
    # Nothing is sent anywhere unless somebody says where.
    if url is None or model is None:
        raise TaskError(
            "cpsycoune is marked by a language model, and none is set: name its server with --judge https://host/v1 "
            "and the model with --judge-model; a key for it is taken from the environment variable "
            f"{KEY_VARIABLE}. Nothing was sent."
        )
    judge = Judge(url, model, os.environ.get(KEY_VARIABLE))
    if wanted.data is None:
        raise TaskError("cpsycoune needs talks: name a JSON file of CPsyCounE, or a folder of them, with --data.")
    cases = read_cases(Path(wanted.data))[: wanted.items]
    turns = [(place, turn) for place, case in enumerate(cases) for turn in choose_answers(case, "each")]
    digest = hashlib.sha256("".join(case.digest for case in cases).encode()).hexdigest()
    # Each turn once: what is asked again for want of marks, or known from before, cannot be told yet.
    requests = len(turns) * (2 if wanted.base else 1)
    notice = NOTICE.format(url=url, model=model, cases=len(cases), data=wanted.data, requests=requests)
    # A judge on this machine needs no consent, since nothing leaves it.
    if judge.is_here:
        wanted.console.print(notice)
    else:
        notice += LEAVING + ("" if url.startswith("https:") else UNENCRYPTED)
        agree_to_texts(wanted.console, notice, recipient=url, texts=digest, yes=yes)
    path = _result_file(wanted, "cpsycoune")

    adapted = wanted.load()
    results: dict[str, dict[str, Any]] = {}
    make_folder(wanted.folder / FOLDER)
    # One process at a time, since two would pay for the same verdicts.
    with used_alone(wanted.folder / FOLDER), Bars(Console(stderr=True)) as bars:
        verdicts = VerdictFile(wanted.folder / FOLDER / "cpsycoune.judged.jsonl")
        for name in adapted.names(wanted.base):
            with adapted.without_adapter(name == BASE):
                replies = _replies(adapted, wanted, [turn for _, turn in turns], name, bars)
            # Turns by their talk: marks are averaged within talks first.
            by_case: list[list[Mapping[str, int] | None]] = [[] for _ in cases]
            answers: list[dict[str, Any]] = []
            for (case, turn), reply in zip(turns, replies, strict=True):
                bars(f"judging {name}", len(answers), len(turns))
                verdict = judge_reply(judge, turn.question, reply, verdicts)
                by_case[case].append(verdict.marks)
                shown = {"source": turn.source, "case": case, "question": turn.question[-1].content, "reply": reply}
                answers.append(shown | {"marks": verdict.marks, "problem": verdict.problem})
            gaps = sum(answer["marks"] is None for answer in answers)
            marks = {mark: {"mean": mean, "error": error} for mark, (mean, error) in averages(by_case).items()}
            results[name] = {"marks": marks, "judged": len(answers) - gaps, "gaps": gaps, "answers": answers}

    table = Table("", *results)
    for name, largest in LARGEST.items():
        cells = []
        for result in results.values():
            mark = result["marks"].get(name)
            error = "" if mark is None or mark["error"] is None else f" ± {mark['error']:.3f}"
            cells.append("-" if mark is None else f"{mark['mean']:.3f}{error}")
        table.add_row(f"{name} (0-{largest})", *cells)
    for title, key in (("judged turns", "judged"), ("turns without a verdict", "gaps")):
        table.add_row(title, *(f"{result[key]:,}" for result in results.values()))
    wanted.console.print(table)
    wanted.console.print(
        f"Judged by {model} at {url}. These marks compare only with marks of the same judge for the same request "
        f"(wording {WORDING[:12]}); they are not those of the paper."
    )
    record = {
        "task": "cpsycoune",
        "judge": {"url": url, "model": model, "wording": WORDING},
        "data": {"source": wanted.data, "examples": len(cases), "sha256": digest},
        "items": wanted.items,
        "max_new_tokens": wanted.max_new_tokens or JUDGED_TOKENS,
        "results": results,
    }
    _store(wanted, path, record, {})


def _replies(adapted: Adapted, wanted: Evaluation, turns: Sequence[Example], name: str, bars: Bars) -> list[str]:
    """Return what the model replies to each turn, from the true talk before it; kept in a file as they come."""
    system = adapted.recipe.data.system
    # As in training, the system message stands first; the judge does not get it.
    first = [Message("system", system)] if system else []
    questions = [[*first, *turn.question] for turn in turns]
    longest = wanted.max_new_tokens or JUDGED_TOKENS
    require_room(adapted.model, adapted.tokenizer, questions, [turn.source for turn in turns], max_new_tokens=longest)
    job = {
        "turns": hashlib.sha256("".join(turn.digest for turn in turns).encode()).hexdigest(),
        # The base model's replies stay when the adapter is trained on.
        "adapter": {} if name == BASE else weight_hashes(wanted.folder),
        "model": adapted.recipe.model.model_dump(mode="json"),
        "system": system,
        "max_new_tokens": longest,
    }
    # Named after the job: another adapter or length has a file of its own, and none stands in another's way.
    key = hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()[:12]
    file = GrowingFile(wanted.folder / FOLDER / f"cpsycoune.replies-{key}.jsonl", job, total=len(turns))
    bars(f"replies of {name}", file.num_lines, len(turns))
    for start in range(file.num_lines, len(turns), BATCH_SIZE):
        batch = questions[start : start + BATCH_SIZE]
        texts = generate(adapted.model, adapted.tokenizer, batch, max_new_tokens=longest)
        file.append({"reply": text} for text in texts)
        bars(f"replies of {name}", file.num_lines, len(turns))
    return [json.loads(line)["reply"] for line in file.path.read_text(encoding="utf-8").split("\n")[:-1]]

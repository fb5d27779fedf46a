"""CPsyCounE: replies of a model in counselling talks, and what a judge elsewhere gives them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from qpeft.data import Example, Message, choose_answers
from qpeft.errors import TaskError
from qpeft.evaluation import generate
from qpeft.evaluation.dialogue import require_room
from qpeft.evaluation.generation import BATCH_SIZE
from qpeft.evaluation.judge import KEY_VARIABLE, Judge, Judgement, VerdictFile, judge_reply
from qpeft.evaluation.tasks.cpsycoune import LARGEST, averages, read_cases, wording
from qpeft.runs import make_folder
from qpeft.runs.bars import Bars
from qpeft.runs.files import GrowingFile, used_alone
from qpeft_cli.adapted import BASE, Adapted, weight_hashes
from qpeft_cli.held_out_scores import FOLDER, origin_record, result_file, write_json
from qpeft_cli.on_device import agree_to_texts

MAX_NEW_TOKENS = 256
NOTICE = (
    "{url} (model {model}) gets the talks of {data} ({cases} in all), turn by turn, with what your model replies: "
    "{requests} requests, fewer where it judged the same before, more where it gives no marks."
)
LEAVING = (
    " These texts leave this machine: whoever runs that server can read and keep them, and may charge for the answers."
)
UNENCRYPTED = " They travel unencrypted."
COMPARABLE = (
    "Judged by {model} at {url}. These marks compare only with marks of the same judge for the same request (wording "
    "{wording}); they are not those of the paper."
)


@dataclass(frozen=True)
class Judging:
    """What `qpeft eval --task cpsycoune` was asked for; its options are described there."""

    folder: Path
    data: str | None
    url: str | None
    model: str | None
    items: int | None
    max_new_tokens: int | None
    base: bool
    output: Path | None
    yes: bool

    def judge(self) -> Judge:
        """Raises: TaskError if none is named: nothing is sent anywhere unless somebody says where."""
        if self.url is None or self.model is None:
            raise TaskError(
                "cpsycoune is marked by a language model, and none is set: name its server with --judge "
                "https://host/v1 and the model with --judge-model; a key for it is taken from the environment "
                f"variable {KEY_VARIABLE}. Nothing was sent."
            )
        return Judge(self.url, self.model, os.environ.get(KEY_VARIABLE))

    def cases(self) -> list[Example]:
        """The talks. Raises: TaskError if none are named; DataError."""
        if self.data is None:
            raise TaskError("cpsycoune needs talks: name a JSON file of CPsyCounE, or a folder of them, with --data.")
        return read_cases(Path(self.data))[: self.items]


def print_judged(wanted: Judging, load: Callable[[], Adapted], console: Console) -> None:
    """Generate replies, have them judged, print the marks and store everything.

    Args:
        wanted: options.
        load: gives the adapter on its base model; called after the user agreed.
        console: where results go.

    Raises: TaskError, DataError; DeviceError if the user does not agree that texts are sent.
    """
    judge, cases = wanted.judge(), wanted.cases()
    turns = [(place, turn) for place, case in enumerate(cases) for turn in choose_answers(case, "each")]
    digest = hashlib.sha256("".join(case.digest for case in cases).encode()).hexdigest()
    _agree(wanted, judge, len(cases), len(turns), digest, console)
    path = result_file(wanted.folder, "cpsycoune", wanted.output)
    found = _judged(load(), wanted, judge, [turn for _, turn in turns])
    results = {name: _result(turns, pairs, len(cases)) for name, pairs in found.items()}
    console.print(_table(results))
    console.print(COMPARABLE.format(model=judge.model, url=judge.url, wording=wording()[:12]))
    record = {
        "task": "cpsycoune",
        "judge": {"url": judge.url, "model": judge.model, "wording": wording()},
        "data": {"source": wanted.data, "examples": len(cases), "sha256": digest},
        "items": wanted.items,
        "max_new_tokens": wanted.max_new_tokens or MAX_NEW_TOKENS,
        "results": results,
    }
    write_json(path, origin_record(wanted.folder) | record)
    console.print(f"results are in {path}")


def _judged(
    adapted: Adapted, wanted: Judging, judge: Judge, turns: Sequence[Example]
) -> dict[str, list[tuple[str, Judgement]]]:
    """Replies to all turns with their verdicts, of each model that is asked for."""
    place = wanted.folder / FOLDER
    make_folder(place)
    found = {}
    with used_alone(place):
        verdicts = VerdictFile(place / "cpsycoune.judged.jsonl")
        for name in adapted.names(wanted.base):
            with adapted.without_adapter(name == BASE):
                replies = _replies(adapted, wanted, turns, name)
            found[name] = _verdicts(judge, turns, replies, verdicts, name)
    return found


def _agree(wanted: Judging, judge: Judge, cases: int, turns: int, digest: str, console: Console) -> None:
    notice = NOTICE.format(
        url=judge.url,
        model=judge.model,
        cases=cases,
        data=wanted.data,
        requests=f"{turns * (2 if wanted.base else 1):,}",
    )
    if judge.is_here:
        console.print(notice)
        return
    notice += LEAVING + ("" if judge.url.startswith("https:") else UNENCRYPTED)
    agree_to_texts(console, notice, recipient=judge.url, texts=digest, yes=wanted.yes)


def _replies(adapted: Adapted, wanted: Judging, turns: Sequence[Example], name: str) -> list[str]:
    """What the model replies to each turn, from the true talk before it; kept in a file as they come."""
    system = adapted.recipe.data.system
    first = [Message("system", system)] if system else []
    questions = [[*first, *turn.question] for turn in turns]
    longest = wanted.max_new_tokens or MAX_NEW_TOKENS
    require_room(adapted.model, adapted.tokenizer, questions, [turn.source for turn in turns], max_new_tokens=longest)
    job = {
        "turns": hashlib.sha256("".join(turn.digest for turn in turns).encode()).hexdigest(),
        "adapter": {} if name == BASE else weight_hashes(wanted.folder),
        "model": adapted.recipe.model.model_dump(mode="json"),
        "system": system,
        "max_new_tokens": longest,
    }
    key = hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()[:12]
    file = GrowingFile(wanted.folder / FOLDER / f"cpsycoune.replies-{key}.jsonl", job, total=len(turns))
    with Bars(Console(stderr=True)) as bars:
        bars(f"replies of {name}", file.num_lines, len(turns))
        for start in range(file.num_lines, len(turns), BATCH_SIZE):
            texts = generate(
                adapted.model, adapted.tokenizer, questions[start : start + BATCH_SIZE], max_new_tokens=longest
            )
            file.append({"reply": text} for text in texts)
            bars(f"replies of {name}", file.num_lines, len(turns))
    return [json.loads(line)["reply"] for line in file.path.read_text(encoding="utf-8").split("\n")[:-1]]


def _verdicts(
    judge: Judge, turns: Sequence[Example], replies: Sequence[str], verdicts: VerdictFile, name: str
) -> list[tuple[str, Judgement]]:
    """Each reply with its verdict."""
    found: list[tuple[str, Judgement]] = []
    with Bars(Console(stderr=True)) as bars:
        for turn, reply in zip(turns, replies, strict=True):
            bars(f"judging {name}", len(found), len(turns))
            found.append((reply, judge_reply(judge, turn.question, reply, verdicts)))
    return found


def _result(
    turns: Sequence[tuple[int, Example]], pairs: Sequence[tuple[str, Judgement]], num_cases: int
) -> dict[str, Any]:
    """Marks of one model, for the record."""
    by_case: list[list[Mapping[str, int] | None]] = [[] for _ in range(num_cases)]
    answers = []
    for (case, turn), (reply, verdict) in zip(turns, pairs, strict=True):
        by_case[case].append(verdict.marks)
        told = {"source": turn.source, "case": case, "question": turn.question[-1].content, "reply": reply}
        answers.append(told | {"marks": verdict.marks, "problem": verdict.problem})
    return {
        "marks": {name: {"mean": mean, "error": error} for name, (mean, error) in averages(by_case).items()},
        "judged": sum(verdict.marks is not None for _, verdict in pairs),
        "gaps": sum(verdict.marks is None for _, verdict in pairs),
        "answers": answers,
    }


def _table(results: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table("", *results)
    for name, largest in LARGEST.items():
        table.add_row(f"{name} (0-{largest})", *(_mark(result["marks"].get(name)) for result in results.values()))
    for title, key in (("judged turns", "judged"), ("turns without a verdict", "gaps")):
        table.add_row(title, *(f"{result[key]:,}" for result in results.values()))
    return table


def _mark(mark: Mapping[str, float | None] | None) -> str:
    if mark is None:
        return "-"
    return f"{mark['mean']:.3f}" + ("" if mark["error"] is None else f" ± {mark['error']:.3f}")

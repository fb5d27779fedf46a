"""The runs in a folder: what each stored, also where that is damaged or only begun."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qpeft.errors import OutputError
from qpeft.runs.record import FILE_NAME, no_run, read_record

Fact = str | int | float | bool | None

RESULTS = (
    "after", "before", "best", "steps", "stopped_early", "seconds_per_step", "peak_memory", "adapter", "device",
    "health", "order",
)  # fmt: skip
"""Parts of a record that say what came out, in the order of interest; the others say what was asked for, and where."""

ALWAYS_NEW = ("recipe.output.folder", "environment.command", "device.run")
"""Facts in which all runs differ, so that they say nothing of two."""


@dataclass(frozen=True)
class StoredRun:
    """A run as it lies in its folder.

    `record`: what run.json holds; empty if it is damaged, and `problem` then says how.
    """

    folder: Path
    record: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None

    @property
    def state(self) -> str:
        """'finished', 'damaged', or 'unfinished' with the step of the last checkpoint."""
        # An unfinished run was interrupted, or is still going: nothing in a folder tells these two apart.
        if self.problem is not None:
            return "damaged"
        if self.record["state"] == "finished":
            return "finished"
        names = [path.name.removeprefix("checkpoint-") for path in self.folder.glob("checkpoints/checkpoint-*")]
        steps = [int(name) for name in names if name.isdecimal()]
        return f"unfinished, step {max(steps)}" if steps else "unfinished"

    def facts(self, *, lists: bool = True) -> dict[str, Fact]:
        """Return every value by 'part.key', such as 'recipe.training.steps', without losses and answers.

        `lists`: with those that hold a value for each item, layer or step, as JSON. A recipe's are always there.
        """
        return dict(_flat("", self.record, lists=lists))


def find_runs(root: Path) -> list[StoredRun]:
    """Return all runs in a folder and the folders in it, by path. Raises: OutputError if there is no such folder."""
    if not root.is_dir():
        raise OutputError(f"{root} is {'no folder' if root.exists() else 'not there'}; name a folder of runs.")
    # A link to nothing is listed too: as a damaged run, it is seen and can be removed.
    found = [Path(folder) for folder, _, _ in os.walk(root) if os.path.lexists(Path(folder) / FILE_NAME)]
    return [read_run(folder) for folder in sorted(found)]


def read_run(folder: Path) -> StoredRun:
    """Return the run in this folder. Raises: OutputError if it holds none."""
    if not os.path.lexists(folder / FILE_NAME):
        raise OutputError(no_run(folder))
    try:
        return StoredRun(folder, read_record(folder))
    except OutputError as error:
        return StoredRun(folder, problem=str(error))


def side_by_side(
    runs: Sequence[StoredRun], *, lists: bool = True
) -> tuple[dict[str, list[Fact]], dict[str, list[Fact]]]:
    """Return in what runs differ, and all their results: for each key a value per run.

    `lists`: as for `StoredRun.facts`. Results come in the order of `RESULTS`.
    """
    facts = [run.facts(lists=lists) for run in runs]
    keys = dict.fromkeys(key for one in facts for key in one)
    values = {key: [one.get(key) for one in facts] for key in keys if key not in ALWAYS_NEW}
    results = {key: row for part in RESULTS for key, row in values.items() if key.split(".")[0] == part}
    others = {key: row for key, row in values.items() if key not in results}
    return {key: row for key, row in others.items() if any(value != row[0] for value in row)}, results


def to_csv(runs: Iterable[StoredRun]) -> bytes:
    """Return UTF-8 with a line for each run and a column for each fact of any of them."""
    rows = [{"folder": str(run.folder), "state": run.state, "problem": run.problem, **run.facts()} for run in runs]
    columns = dict.fromkeys(["folder", "state", "problem", *(key for row in rows for key in row)])
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    # A path may hold bytes that are no UTF-8, and one such run must not cost the others their table.
    return text.getvalue().encode("utf-8", errors="backslashreplace")


def to_json(runs: Iterable[StoredRun]) -> bytes:
    """Return UTF-8 with a list of the whole records, each with its folder and, if damaged, the problem."""
    rows = [{"folder": str(run.folder), "problem": run.problem, **run.record} for run in runs]
    return (json.dumps(rows, indent=2, ensure_ascii=False) + "\n").encode("utf-8", errors="backslashreplace")


def _flat(name: str, value: Any, *, lists: bool) -> Iterable[tuple[str, Fact]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}" if name else str(key), inner, lists=lists)
    elif not isinstance(value, list):
        yield name, value
    elif name.startswith("recipe.") or (lists and not any(isinstance(inner, dict) for inner in value)):
        yield name, json.dumps(value, ensure_ascii=False)

"""`qpeft runs`: what runs stored about themselves."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console, RenderableType
from rich.table import Column, Table

from qpeft_cli.keys import recipe_keys
from qpeft_cli.terminal import broken, plain_console, shortened

if TYPE_CHECKING:
    from qpeft.runs.catalogue import Fact, StoredRun

runs = typer.Typer(help="Look at and compare what runs stored.", no_args_is_help=True, rich_markup_mode=None)
Root = Annotated[Path, typer.Argument(help="Folder with runs in it, or in folders in it.")]
SCREEN = 40
"""Lines that `show` and `compare` print without --all: results before all else."""
LOSSES_SHOWN, MOST_RESULTS, MOST_COMPARED, MOST_NAMES = 7, 7, 14, 6
AROUND_TABLE, NARROWEST = 8, 8
"""Lines of `compare` that are no rows, but for the names of runs; characters of its narrowest column."""
LISTED = {
    "recipe.adapter.type": ("method", ""),
    "recipe.model.name": ("model", ""),
    "adapter.trainable_parameters": ("parameters", ""),
    "steps": ("steps", ""),
    "before.loss": ("loss before", ".4f"),
    "after.loss": ("after", ".4f"),
    "after.exact_match": ("exact match", ".1%"),
    "seconds_per_step": ("s/step", ".3g"),
}
"""Facts of a run in a list: titles, and how they are written where they are no whole numbers."""
LESS_NEEDED = ("recipe.model.name", "adapter.trainable_parameters", "seconds_per_step")
WIDE, NAME_WIDTH = 120, 22
"""Columns of a terminal from which on a list has all facts; characters of the names of runs below that."""
OUTCOME = (
    "steps", "seconds_per_step", "peak_memory", "adapter.trainable_parameters", "learning_rate.value", "best.step",
    "device.circuits", "device.shots",
)  # fmt: skip
"""What `show` says of a training, beside its losses."""


@runs.command(name="list")
def list_runs(root: Root = Path("runs")) -> None:
    """List runs: state, method, model, size, and held-out loss before and after."""
    from qpeft.runs.catalogue import find_runs

    found, console = find_runs(root), plain_console(for_tables=True)
    # An empty table would leave open whether the folder was the right one.
    if not found:
        console.print(f"There is no run in {root}.")
        return
    listed = {key: row for key, row in LISTED.items() if console.width >= WIDE or key not in LESS_NEEDED}
    table = Table(Column("run", no_wrap=True), "state", *(title for title, _ in listed.values()))
    for run in found:
        facts, name = run.facts(lists=False), str(run.folder)
        table.add_row(
            name if console.width >= WIDE else broken(name, NAME_WIDTH),
            run.state,
            *(_shown(facts.get(key), form) for key, (_, form) in listed.items()),
        )
    console.print(table)
    for run in found:
        if run.problem:
            console.print(f"damaged: {run.problem}")


@runs.command()
def show(
    folder: Annotated[Path, typer.Argument(help="Folder of a run.")],
    everything: Annotated[
        bool, typer.Option("--all", help="All that is stored: every key, all losses, health by layer, answers.")
    ] = False,
) -> None:
    """Show what came out of a run, and what was asked for, on one screen."""
    run, console = _read(folder), plain_console(for_tables=True)
    after = run.record.get("after")
    samples = _rows(after.get("samples") if isinstance(after, dict) else None)
    if everything:
        table = Table("key", "value", title=f"{run.folder}: {run.state}", title_justify="left")
        for key, value in run.facts().items():
            table.add_row(key, _shown(value))
        console.print(table)
        for line in _losses(run, console, sys.maxsize):
            console.print(line)
        for sample in samples:
            console.print(f"> {sample.get('question')}", style="bold")
            console.print(f"{sample.get('text')}\n(expected: {sample.get('expected')})")
        return

    facts = run.facts(lists=False)
    method, model = (facts.get(f"recipe.{key}") for key in ("adapter.type", "model.name"))
    lines = [shortened(f"{run.state}: {method} on {model}, in {folder}", console.width)]
    # What was measured before and after; then the training; results come before all else.
    names = dict.fromkeys(key.partition(".")[2] for key in facts if key.startswith(("after.", "before.")))
    measured = [(name, facts.get(f"before.{name}"), facts.get(f"after.{name}")) for name in names]
    if measured := [row for row in measured if row[1:] != (None, None)][:MOST_RESULTS]:
        shown = [(name, _shown(before), _shown(after)) for name, before, after in measured]
        lines += _aligned([("measured", "before", "after"), *shown], console)
    if outcome := [(key, _shown(facts[key])) for key in OUTCOME if facts.get(key) not in (None, False)]:
        lines += ["", *_aligned([("training", ""), *outcome], console)]
    health = run.record.get("health")
    warnings = health.get("warnings") if isinstance(health, dict) else None
    if isinstance(warnings, dict) and warnings:
        layer, problem = next(iter(warnings.items()))
        lines.append(shortened(f"warnings of {len(warnings)} layers, first {layer}: {problem}", console.width))
    lines += _losses(run, console, LOSSES_SHOWN)
    for sample in samples[:1]:
        answer = f"{sample.get('text')} (expected: {sample.get('expected')})"
        lines += [shortened(line, console.width) for line in (f"> {sample.get('question')}", answer)]

    # Of the recipe, what is not so by default; lists are JSON already.
    usual = {f"recipe.{key.path}": key.default for key in recipe_keys() if key.section != "adapter"}
    asked = {key: value for key, value in facts.items() if key.startswith("recipe.") and value is not None}
    settings = [
        (key.removeprefix("recipe."), _shown(value))
        for key, value in asked.items()
        if json.dumps(value) != usual.get(key) and value != usual.get(key)
    ]
    # Settings have what results leave of the screen.
    room = SCREEN - len(lines) - 4
    lines += ["", *_aligned([("asked for", ""), *settings[:room]], console)]
    for line in lines:
        console.print(line)
    more = f"{len(settings) - room:,} more keys, and " if len(settings) > room else ""
    console.print(f"{more}all that is stored: --all")


@runs.command()
def compare(
    folders: Annotated[list[Path], typer.Argument(help="Folders of two runs or more.")],
    everything: Annotated[
        bool, typer.Option("--all", help="All results, those of single items too, and all that differs.")
    ] = False,
) -> None:
    """Show the results of runs side by side, and in what they differ (recipe, data, versions), on one screen."""
    from qpeft.runs.catalogue import side_by_side

    if len(folders) < 2:
        raise typer.BadParameter("Name two folders or more.")
    console = plain_console(for_tables=True)
    differing, results = side_by_side([_read(folder) for folder in folders], lists=everything)
    if not everything:
        results = {key: row for key, row in results.items() if any(value is not None for value in row)}
    parts = [results, differing]
    if not everything:
        # Results have the screen first, but for what is needed to see in what the runs differ.
        most = SCREEN - AROUND_TABLE - min(len(folders), MOST_NAMES)
        first = list(results.items())[: max(MOST_COMPARED, most - len(differing))]
        parts = [dict(first), dict(list(differing.items())[: max(0, most - len(first))])]
    for line in _side_by_side(folders, parts, console, whole=everything):
        console.print(line)
    if not differing:
        console.print("Recipes, data and versions do not differ.")
    if left_out := len(results) + len(differing) - sum(map(len, parts)):
        console.print(f"{left_out:,} more rows: --all")


@runs.command()
def export(
    root: Root = Path("runs"),
    format_: Annotated[
        Literal["csv", "json"], typer.Option("--format", help="csv: a line a run; json: whole records.")
    ] = "csv",
    output: Annotated[Path | None, typer.Option(help="File to write; by default standard output.")] = None,
) -> None:
    """Write what all runs stored as one table or list."""
    from qpeft.runs import write_atomically
    from qpeft.runs.catalogue import find_runs, to_csv, to_json

    found = find_runs(root)
    content = to_csv(found) if format_ == "csv" else to_json(found)
    if output is None:
        sys.stdout.write(content.decode())
    else:
        write_atomically(output, content)


def _read(folder: Path) -> StoredRun:
    """Return a run whose record is whole. Raises: OutputError."""
    from qpeft.errors import OutputError
    from qpeft.runs.catalogue import read_run

    run = read_run(folder)
    if run.problem:
        raise OutputError(run.problem)
    return run


def _losses(run: StoredRun, console: Console, most: int) -> list[str]:
    """Return lines of some of the losses, the first and the last among them."""
    history = [row for row in _rows(run.record.get("history")) if "loss" in row or "eval_loss" in row]
    if not history:
        return []
    # Evenly spaced; the last is always there, since it is what came out.
    every = -(-len(history) // most)
    rows = [
        tuple(_shown(row.get(key)) for key in ("step", "loss", "eval_loss", "learning_rate"))
        for row in [*history[:-1:every], history[-1]]
    ]
    return ["", *_aligned([("step", "loss", "held-out loss", "learning rate"), *rows], console)]


def _aligned(rows: Sequence[tuple[str, ...]], console: Console) -> list[str]:
    """Return rows as lines whose cells stand below each other, none wider than the console."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [line if len(line) <= console.width else f"{line[: console.width - 3]}..." for line in lines]


def _side_by_side(
    folders: Sequence[Path], parts: Sequence[Mapping[str, Sequence[Fact]]], console: Console, *, whole: bool
) -> list[RenderableType]:
    """Return a table of a column for each run, and what must be said around it.

    A line is drawn between the parts. Long values are folded if `whole`, else shortened.
    """
    keys = max((len(key) for part in parts for key in part), default=0)
    # A border and two spaces go with every column.
    fitting = max(1, min(len(folders), (console.width - keys - 4) // (NARROWEST + 3)))
    room = (console.width - keys - 4) // fitting - 3
    names, lines = [str(folder) for folder in folders[:fitting]], []
    if max(map(len, names)) > room:
        lines += [shortened(f"[{number}] {name}", console.width) for number, name in enumerate(names, start=1)]
        # Long paths differ at their ends, so they stand above, and the columns have numbers.
        names = [f"[{number}]" for number in range(1, fitting + 1)]
    # Keys in whole: they differ at the end, where a narrow terminal would cut them off.
    table = Table(Column(no_wrap=True), *(Column(name, overflow="fold") for name in names))
    for part in parts:
        for key, row in part.items():
            cells = map(_shown, row[:fitting])
            table.add_row(key, *(cells if whole else (shortened(cell, max(room, NARROWEST)) for cell in cells)))
        table.add_section()
    more = len(folders) - fitting
    note = f"{more} more runs need more than {console.width} columns: a wider terminal, or a file"
    return [*lines, table, *([note] if more else [])]


def _rows(value: Any) -> list[dict[str, Any]]:
    # Records may be of any version, or written by hand.
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def _shown(value: Fact, form: str = ".6g") -> str:
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:{form}}"

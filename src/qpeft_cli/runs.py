"""`qpeft runs`: what runs stored about themselves."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Column, Table

if TYPE_CHECKING:
    from qpeft.runs.catalogue import Fact, StoredRun

runs = typer.Typer(help="Look at and compare what runs stored.", no_args_is_help=True, rich_markup_mode=None)
Root = Annotated[Path, typer.Argument(help="Folder with runs in it, or in folders in it.")]
WIDTH_OF_PIPES = 100_000
"""Wide enough for any number of runs side by side; a table takes no more than it needs."""
LOSSES_SHOWN = 12


@runs.command(name="list")
def list_runs(root: Root = Path("runs")) -> None:
    """List runs: state, method, model, size, and held-out loss before and after."""
    from qpeft.runs.catalogue import find_runs  # noqa: PLC0415  (takes seconds to import)

    found = find_runs(root)
    if not found:
        _console().print(f"There is no run in {root}.")
        return
    table = Table(
        "run", "state", "method", "model", "parameters", "steps", "loss before", "after", "exact match", "s/step"
    )
    for run in found:
        facts = run.facts()
        table.add_row(str(run.folder), run.state, *(_shown(facts.get(key), form) for key, form in LISTED.items()))
    _console().print(table)
    for run in found:
        if run.problem:
            _console().print(f"damaged: {run.problem}")


LISTED = {
    "recipe.adapter.type": "",
    "recipe.model.name": "",
    "adapter.trainable_parameters": "",
    "steps": "",
    "before.loss": ".4f",
    "after.loss": ".4f",
    "after.exact_match": ".1%",
    "seconds_per_step": ".3g",
}
"""Facts of a run in a list, and how they are written where they are no whole numbers."""


@runs.command()
def show(folder: Annotated[Path, typer.Argument(help="Folder of a run.")]) -> None:
    """Show all that a run stored: recipe, results, machine, losses, answers."""
    run, console = _read(folder), _console()
    table = Table("key", "value", title=f"{folder}: {run.state}", title_justify="left")
    for key, value in run.facts().items():
        table.add_row(key, _shown(value))
    console.print(table)
    history = [row for row in _rows(run.record.get("history")) if "loss" in row or "eval_loss" in row]
    if history:
        losses = Table("step", "loss", "held-out loss", "learning rate")
        every = -(-len(history) // LOSSES_SHOWN)
        for row in [*history[:-1:every], history[-1]]:
            losses.add_row(*(_shown(row.get(key)) for key in ("step", "loss", "eval_loss", "learning_rate")))
        console.print(losses)
    after = run.record.get("after")
    for sample in _rows(after.get("samples") if isinstance(after, dict) else None):
        console.print(f"> {sample.get('question')}", style="bold")
        console.print(f"{sample.get('text')}\n(expected: {sample.get('expected')})")


@runs.command()
def compare(folders: Annotated[list[Path], typer.Argument(help="Folders of two runs or more.")]) -> None:
    """Show side by side in what runs differ (recipe, data, versions), and their results."""
    from qpeft.runs.catalogue import side_by_side  # noqa: PLC0415  (takes seconds to import)

    if len(folders) < 2:
        raise typer.BadParameter("Name two folders or more.")
    differing, results = side_by_side([_read(folder) for folder in folders])
    # Whole names: keys differ at the end, where a narrow terminal would cut them off.
    table = Table(Column(no_wrap=True), *(Column(str(folder), overflow="fold") for folder in folders))
    for rows in (differing, results):
        for key, row in rows.items():
            table.add_row(key, *map(_shown, row))
        table.add_section()
    _console().print(table)
    if not differing:
        _console().print("Recipes, data and versions do not differ.")


@runs.command()
def export(
    root: Root = Path("runs"),
    format_: Annotated[
        Literal["csv", "json"], typer.Option("--format", help="csv: a line a run; json: whole records.")
    ] = "csv",
    output: Annotated[Path | None, typer.Option(help="File to write; by default standard output.")] = None,
) -> None:
    """Write what all runs stored as one table or list."""
    from qpeft.runs import write_atomically  # noqa: PLC0415  (takes seconds to import)
    from qpeft.runs.catalogue import find_runs, to_csv, to_json  # noqa: PLC0415

    found = find_runs(root)
    content = to_csv(found) if format_ == "csv" else to_json(found)
    if output is None:
        sys.stdout.write(content.decode())
    else:
        write_atomically(output, content)


def _read(folder: Path) -> StoredRun:
    """A run whose record is whole. Raises: OutputError."""
    from qpeft.errors import OutputError  # noqa: PLC0415
    from qpeft.runs.catalogue import read_run  # noqa: PLC0415

    run = read_run(folder)
    if run.problem:
        raise OutputError(run.problem)
    return run


def _rows(value: Any) -> list[dict[str, Any]]:
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def _shown(value: Fact, form: str = ".6g") -> str:
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:{form}}"


def _console() -> Console:
    # Piped to another program, a table must not be cut to 80 columns.
    width = None if sys.stdout.isatty() else WIDTH_OF_PIPES
    return Console(highlight=False, soft_wrap=True, markup=False, emoji=False, width=width)

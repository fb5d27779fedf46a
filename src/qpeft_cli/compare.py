"""`qpeft compare`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from qpeft_cli.keys import keys_of

if TYPE_CHECKING:
    from qpeft.comparison import Results


def _show_keys(wanted: bool) -> None:
    if wanted:
        typer.echo(keys_of("study", in_full=True))
        raise typer.Exit


def _show_schema(wanted: bool) -> None:
    if wanted:
        from qpeft.comparison.study import study_schema

        typer.echo(json.dumps(study_schema(), indent=2, ensure_ascii=False))
        raise typer.Exit


def compare(
    context: typer.Context,
    study: Annotated[Path, typer.Argument(help="YAML file.")],
    jobs: Annotated[int, typer.Option(min=1, help="Runs at the same time, each in a process of its own.")] = 1,
    schema: Annotated[  # noqa: ARG001  (printed before STUDY is asked for)
        bool,
        typer.Option("--schema", is_eager=True, callback=_show_schema, help="Print the JSON schema of studies."),
    ] = False,
    keys: Annotated[  # noqa: ARG001
        bool, typer.Option("--keys", is_eager=True, callback=_show_keys, help="Print all keys of studies.")
    ] = False,
) -> None:
    """Compare methods: train each at several learning rates with several seeds, and say which differences are real.

    Every key of the study can be set after it: --seeds "[0, 1]" --recipe.training.steps 100 --output.folder runs/try

    What is interrupted goes on with the same command; finished runs are kept. The report lies in the study's folder.
    """
    from qpeft.comparison import load_study, run_study
    from qpeft.comparison.report import write_report

    parsed = load_study(study, context.args)
    console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
    try:
        results, log = run_study(parsed, processes=jobs, console=console)
    except KeyboardInterrupt as interrupt:
        typer.echo("\ninterrupted; finished runs are kept: continue with the same command", err=True)
        raise typer.Exit(130) from interrupt
    show(results, console)
    console.print(f"report: {write_report(results, log)}")


def show(results: Results, console: Console) -> None:
    """The verdict, a table and what must not be concluded."""
    from rich.table import Table
    from rich.text import Text

    from qpeft.comparison import summary_text

    table = Table("method", "parameters", "learning rate", "loss", f"minus {results.study.reference}", "verdict")
    rates = {choice.method: choice for choice in results.choices}
    for one in results.measured:
        choice = rates[one.method]
        table.add_row(
            Text(one.method),
            f"{one.parameters:,}",
            f"{choice.rate:g}{' (edge)' if choice.is_at_edge else ''}",
            summary_text.interval(one.loss),
            summary_text.signed(one.against.loss) if one.against else "",
            one.against.verdict if one.against else "reference",
        )
    console.print(table)
    for contrast in results.contrasts:
        console.print(Text(f"{contrast.method} minus {contrast.other}: {summary_text.signed(contrast.against.loss)}"))
    console.print(Text(summary_text.headline(results), style="bold"))
    for gap in results.gaps:
        console.print(Text(f"missing: {gap}", style="yellow"))

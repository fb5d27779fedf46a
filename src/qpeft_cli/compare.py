"""`qpeft compare` and `qpeft report`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from qpeft_cli.keys import keys_of
from qpeft_cli.options import printing
from qpeft_cli.terminal import plain_console

if TYPE_CHECKING:
    from qpeft.comparison import Results


def _schema() -> str:
    from qpeft.comparison.study import study_schema

    return json.dumps(study_schema(), indent=2, ensure_ascii=False)


def compare(
    context: typer.Context,
    study: Annotated[Path, typer.Argument(help="YAML file.")],
    jobs: Annotated[int, typer.Option(min=1, help="Runs at the same time, each in a process of its own.")] = 1,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Run on a Ray cluster instead: 'auto' for the one of this machine, 'ray://HOST:10001', or 'local'.",
        ),
    ] = None,
    ray_cpus: Annotated[float, typer.Option(min=0.01, help="CPUs, and so threads, of one training on Ray.")] = 1,
    ray_gpus: Annotated[float, typer.Option(min=0, help="GPUs of one training on Ray; 0 trains on CPUs.")] = 0,
    ray_retries: Annotated[int, typer.Option(min=0, help="New attempts at a training whose worker died.")] = 2,
    schema: Annotated[  # noqa: ARG001  (printed before STUDY is asked for)
        bool,
        typer.Option("--schema", is_eager=True, callback=printing(_schema), help="Print the JSON schema of studies."),
    ] = False,
    keys: Annotated[  # noqa: ARG001
        bool,
        typer.Option(
            "--keys",
            is_eager=True,
            callback=printing(lambda: keys_of("study", in_full=True)),
            help="Print all keys of studies.",
        ),
    ] = False,
) -> None:
    """Compare methods: train each at several learning rates with several seeds, and say which differences are real.

    Every key of the study can be set after it: --seeds "[0, 1]" --recipe.training.steps 100 --output.folder runs/try

    What is interrupted goes on with the same command; finished runs are kept. The report lies in the study's folder.

    \b
    Example:
      qpeft compare examples/studies/word_problems.yaml
    """
    from qpeft.comparison import load_study, run_study
    from qpeft.comparison.ray_jobs import RayCluster
    from qpeft.comparison.report import write_report

    parsed = load_study(study, context.args)
    console = plain_console()
    cluster = RayCluster(ray, ray_cpus, ray_gpus, ray_retries) if ray is not None else None
    try:
        results, log = run_study(parsed, processes=jobs, console=console, cluster=cluster)
    except KeyboardInterrupt as interrupt:
        typer.echo("\ninterrupted; finished runs are kept: continue with the same command", err=True)
        raise typer.Exit(130) from interrupt
    _show(results, console)
    console.print(f"report: {write_report(results, log)}")


def report(
    study: Annotated[Path, typer.Argument(help="Folder of a study, as qpeft compare left it, or its results.json.")],
    html: Annotated[
        Path | None,
        typer.Option(help="Write the HTML file there; without it, into the folder, or beside the JSON file."),
    ] = None,
) -> None:
    """Write the report of a study again: report.html, report.md and results.json. Nothing is trained or measured.

    Of results.json, under whatever name, the HTML file alone: it holds all records of the study, without adapters.

    \b
    Example:
      qpeft report docs/evidence/depth.json
    """
    from qpeft.comparison import load_results
    from qpeft.comparison.records import read_records
    from qpeft.comparison.report import write_page, write_report

    console = plain_console()
    # One file holds all records of a study, so that it can be sent on; the folder has what they were made from.
    if study.is_file():
        results, log = read_records(study)
        place = write_page(results, log, html or study.with_suffix(".html"))
    else:
        results, log = load_results(study)
        place = write_report(results, log, html)
    _show(results, console)
    console.print(f"report: {place}")


def _show(results: Results, console: Console) -> None:
    """Print a table, the verdict, and what is missing."""
    from qpeft.comparison import summary_text

    table = Table("method", "parameters", "learning rate", "loss", f"minus {results.study.reference}", "verdict")
    # At the edge of the rates that were tried, a better one may lie beyond; the table says so.
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

"""`qpeft report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def report(
    study: Annotated[Path, typer.Argument(help="Folder of a study, as qpeft compare left it, or its results.json.")],
    html: Annotated[
        Path | None,
        typer.Option(help="Write the HTML file there; without it, into the folder, or beside the JSON file."),
    ] = None,
) -> None:
    """Write the report of a study again: report.html, report.md and results.json. Nothing is trained or measured.

    Of results.json, under whatever name, the HTML file alone: it holds all records of the study, without adapters.
    """
    from qpeft.comparison import load_results
    from qpeft.comparison.records import read_records
    from qpeft.comparison.report import write_page, write_report
    from qpeft_cli.compare import show

    console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
    if study.is_file():
        results, ledger = read_records(study)
        place = write_page(results, ledger, html or study.with_suffix(".html"))
    else:
        results, ledger = load_results(study)
        place = write_report(results, ledger, html)
    show(results, console)
    console.print(f"report: {place}")

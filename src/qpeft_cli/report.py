"""`qpeft report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a study, as qpeft compare left it.")],
    html: Annotated[Path | None, typer.Option(help="Write the HTML file there; without it, into the folder.")] = None,
) -> None:
    """Write the report of a study again: report.html, report.md and results.json. Nothing is trained or measured."""
    from qpeft.comparison import found_in  # noqa: PLC0415  (takes seconds to import)
    from qpeft.comparison.report import write_report  # noqa: PLC0415
    from qpeft_cli.compare import show  # noqa: PLC0415

    results, ledger = found_in(folder)
    console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
    show(results, console)
    console.print(f"report: {write_report(results, ledger, html)}")

"""`qpeft data`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def data(
    name: Annotated[str | None, typer.Argument(help="Data set, such as word_problems.", show_default=False)] = None,
    file: Annotated[Path | None, typer.Argument(help="Where it is written, as JSON lines.", show_default=False)] = None,
) -> None:
    """List the data that come with qpeft, or write a set of them to a file, to look at or to change.

    A recipe takes them by name too: `data.train: package:word_problems`.

    \b
    Example:
      qpeft data word_problems problems.jsonl
    """
    from qpeft.data.packaged import PACKAGED, packaged_file
    from qpeft.errors import OutputError
    from qpeft.runs import write_atomically

    if name is None:
        for known, about in PACKAGED.items():
            typer.echo(f"package:{known}  {about}")
        return
    text = packaged_file(name).read_text(encoding="utf-8")
    if file is None:
        raise typer.BadParameter("is missing: name the file to write, such as problems.jsonl", param_hint="FILE")
    if file.exists() and file.read_text(encoding="utf-8", errors="replace") != text:
        raise OutputError(f"{file} is there already and holds something else. Name another file.")
    write_atomically(file, text)
    typer.echo(f"{file}: {len(text.splitlines()):,} rows")

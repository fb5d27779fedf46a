"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from qpeft_cli.keys import keys_of

TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run Python code that comes with the base model.")
]
"""Said again for every command: what a folder says of it may come from anybody."""

AdapterFolder = Annotated[Path, typer.Argument(help="Folder of a trained adapter.")]
AnsweringFolder = Annotated[
    Path, typer.Argument(help="Folder of a trained adapter, of an exported one, or of a model that `merge` wrote.")
]
SystemMessage = Annotated[
    str | None, typer.Option(help="System message; by default that of the training run. '' for none.")
]
HeldOutData = Annotated[str | None, typer.Option(help="Held-out examples; without it, those of the training run.")]


def printing(text: Callable[[], str]) -> Callable[[bool], None]:
    """Return a callback of an eager option that prints a text and ends, before anything else is asked for."""

    def show(wanted: bool) -> None:
        if wanted:
            typer.echo(text())
            raise typer.Exit

    return show


RecipeKeys = Annotated[
    bool,
    typer.Option(
        "--keys",
        is_eager=True,
        callback=printing(lambda: keys_of("recipe", in_full=True)),
        help="Print all keys of recipes.",
    ),
]

"""`qpeft train`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from qpeft_cli.keys import keys_of


def show_keys(wanted: bool) -> None:
    """Print all keys of recipes, if that is what is wanted, and end."""
    if wanted:
        typer.echo(keys_of("recipe", in_full=True))
        raise typer.Exit


def _show_schema(wanted: bool) -> None:
    if wanted:
        from qpeft.training.config import recipe_schema

        typer.echo(json.dumps(recipe_schema(), indent=2, ensure_ascii=False))
        raise typer.Exit


def train(
    context: typer.Context,
    recipe: Annotated[Path, typer.Argument(help="YAML file.")],
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the interrupted run in the output folder.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Agree that a quantum device gets angles of your text.")] = False,
    schema: Annotated[  # noqa: ARG001  (printed before RECIPE is asked for)
        bool,
        typer.Option("--schema", is_eager=True, callback=_show_schema, help="Print the JSON schema of recipes."),
    ] = False,
    keys: Annotated[  # noqa: ARG001
        bool, typer.Option("--keys", is_eager=True, callback=show_keys, help="Print all keys of recipes.")
    ] = False,
) -> None:
    """Train an adapter.

    Every key of the recipe can be set after it: --training.steps 100 --adapter.rank 4 --output.folder runs/try
    """
    from qpeft.training import load_recipe
    from qpeft_cli.on_device import asking

    parsed = load_recipe(recipe, context.args)
    from qpeft.training import train as run

    try:
        console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
        run(parsed, resume=resume, console=console, confirm=asking(console, yes=yes))
    except KeyboardInterrupt as interrupt:
        typer.echo(
            f"\ninterrupted; the last checkpoint in {parsed.output.folder} is whole: continue with --resume", err=True
        )
        raise typer.Exit(130) from interrupt

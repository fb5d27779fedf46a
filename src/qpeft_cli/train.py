"""`qpeft train`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from qpeft_cli.options import RecipeKeys, printing
from qpeft_cli.terminal import plain_console


def _schema() -> str:
    from qpeft.training.config import recipe_schema

    return json.dumps(recipe_schema(), indent=2, ensure_ascii=False)


def train(
    context: typer.Context,
    recipe: Annotated[Path, typer.Argument(help="YAML file.")],
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the interrupted run in the output folder.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Load and try everything, up to the first step; write and send nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Agree that a quantum device gets angles of your text.")] = False,
    schema: Annotated[  # noqa: ARG001  (printed before RECIPE is asked for)
        bool,
        typer.Option("--schema", is_eager=True, callback=printing(_schema), help="Print the JSON schema of recipes."),
    ] = False,
    keys: RecipeKeys = False,  # noqa: ARG001
) -> None:
    """Train an adapter.

    Every key of the recipe can be set after it.

    \b
    Examples:
      qpeft init recipe.yaml                   # a recipe to begin with
      qpeft train recipe.yaml --dry-run
      qpeft train recipe.yaml --training.steps 100 --output.folder runs/try
      qpeft train recipe.yaml --resume         # after an interruption
    """
    from qpeft.training import load_recipe
    from qpeft_cli.on_device import asking

    parsed = load_recipe(recipe, context.args)
    # Its import takes seconds that a mistake in the recipe need not wait for.
    from qpeft.training import rehearse
    from qpeft.training import train as run

    console = plain_console()
    if dry_run:
        if resume:
            raise typer.BadParameter("cannot be combined with --resume; leave one out", param_hint="--dry-run")
        rehearse(parsed, console=console)
        return
    try:
        # Asked once it is known what a device would get, and before anything is sent.
        run(parsed, resume=resume, console=console, confirm=asking(console, yes=yes))
    except KeyboardInterrupt as interrupt:
        typer.echo(
            f"\ninterrupted; the last checkpoint in {parsed.output.folder} is whole: continue with --resume", err=True
        )
        raise typer.Exit(130) from interrupt

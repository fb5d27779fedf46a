"""Entry point of `qpeft`: finds the command, and turns our errors into one sentence and exit code 2."""

from __future__ import annotations

import os
import sys
import warnings

import typer
from rich.console import Console
from rich.text import Text

from qpeft.cli.devices import devices
from qpeft.cli.evaluate import evaluate
from qpeft.cli.export import export
from qpeft.cli.generate import generate
from qpeft.cli.inspect import inspect
from qpeft.cli.jobs import jobs
from qpeft.cli.merge import merge
from qpeft.cli.train import train
from qpeft.errors import QpeftError

OVERRIDABLE = {"allow_extra_args": True, "ignore_unknown_options": True}

app = typer.Typer(
    name="qpeft",
    help="Fine-tune language models with quantum tensor hybrid adapters.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command(context_settings=OVERRIDABLE)(train)
app.command(name="eval")(evaluate)
app.command()(generate)
app.command(context_settings=OVERRIDABLE)(inspect)
app.command()(export)
app.command()(merge)
app.add_typer(jobs, name="jobs")
app.add_typer(devices, name="devices")


def main() -> None:
    """Run the command line."""
    # Set before tokenizers starts threads: forked data workers would otherwise print a warning each.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    # Deprecations among transformers, peft and trl: nothing that a user of ours can act on.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft|trl)\.")
    try:
        app()
    except QpeftError as error:
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        console.print(Text.assemble(("error: ", "bold red"), str(error)))
        sys.exit(2)

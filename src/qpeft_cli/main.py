"""Entry point of `qpeft`: finds the command, and turns our errors into one sentence and exit code 2."""

from __future__ import annotations

import io
import os
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.text import Text

from qpeft_cli.keys import keys_of
from qpeft_cli.options import printing


@dataclass(frozen=True)
class Command:
    """Where a command is: "module:function", or "module:app" for one with commands of its own.

    `keys`: what file it takes, a recipe or a study, of which any `--section.key value` may follow.
    """

    place: str
    keys: Literal["recipe", "study"] | None = None

    def add_to(self, app: typer.Typer, name: str) -> None:
        """Import it and make it known to `app`."""
        module, _, attribute = self.place.partition(":")
        found = getattr(import_module(module), attribute)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name)
            return
        settings = {"allow_extra_args": True, "ignore_unknown_options": True} if self.keys else {}
        # Read from source files, which only --help should wait for.
        help_on_keys = None
        if self.keys is not None and "--help" in sys.argv:
            most = "Most used keys of a recipe" if self.keys == "recipe" else "Keys of a study"
            written = "written --section.key value" if self.keys == "recipe" else "written --key value"
            # \b keeps lines as they are.
            help_on_keys = (
                f"{most}, {written}:\n\n\b\n{keys_of(self.keys)}\n\nAll of them, in full: qpeft {name} --keys"
            )
        app.command(name, context_settings=settings, epilog=help_on_keys)(found)


COMMANDS = {
    "init": Command("qpeft_cli.init:init"),
    "data": Command("qpeft_cli.init:data"),
    "train": Command("qpeft_cli.train:train", keys="recipe"),
    "eval": Command("qpeft_cli.evaluate:evaluate"),
    "generate": Command("qpeft_cli.generate:generate"),
    "chat": Command("qpeft_cli.chat:chat"),
    "compare": Command("qpeft_cli.compare:compare", keys="study"),
    "report": Command("qpeft_cli.compare:report"),
    "split": Command("qpeft_cli.split:split"),
    "inspect": Command("qpeft_cli.inspect:inspect", keys="recipe"),
    "export": Command("qpeft_cli.export:export"),
    "merge": Command("qpeft_cli.export:merge"),
    "finalize": Command("qpeft_cli.export:finalize"),
    "runs": Command("qpeft_cli.runs:runs"),
    "jobs": Command("qpeft_cli.jobs:jobs"),
    "devices": Command("qpeft_cli.devices:devices"),
}
"""In the order of `qpeft --help`. Their files import `qpeft` inside functions only: tests/cli/test_start.py."""


SECONDS_AFTER_FIRST = 10.0
"""That other processes of a launcher wait before they say what stopped them."""


def _global_options(
    _: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=printing(lambda: version("qpeft")), help="Print the version of qpeft."
        ),
    ] = False,
) -> None:
    """Options before the command."""


def application(arguments: Sequence[str]) -> typer.Typer:
    """Return the command line that these arguments need: the one command that they name, or all if they name none."""
    app = typer.Typer(
        name="qpeft",
        help="Fine-tune language models with quantum tensor hybrid adapters. Begin with: qpeft init",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        callback=_global_options,
    )
    # One command alone is imported; a mistyped name needs all, to find the nearest.
    for name in [name for name in arguments[:1] if name in COMMANDS] or COMMANDS:
        COMMANDS[name].add_to(app, name)
    return app


def main() -> None:
    """Run the command line."""
    # Set before tokenizers starts threads: forked data workers would otherwise print a warning each.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    # Deprecations among transformers and peft: nothing that a user of ours can act on.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft)\.")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # answers may hold what a terminal cannot show
    try:
        application(sys.argv[1:])(prog_name="qpeft")
    except Exception as error:
        message = _message(error)
        if message is None:
            raise
        # What all processes of a launcher met, the first says; the launcher then ends the others.
        if int(os.environ.get("RANK", "0")):
            time.sleep(SECONDS_AFTER_FIRST)
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        console.print(Text.assemble(("error: ", "bold red"), message))
        sys.exit(2)


def _message(error: Exception) -> str | None:
    """Return what to tell the user; None for a mistake of ours, whose traceback is needed."""
    from torch import OutOfMemoryError

    from qpeft.errors import QpeftError

    if isinstance(error, QpeftError):
        return str(error)
    # On a CPU torch says so in a RuntimeError.
    if isinstance(error, (MemoryError, OutOfMemoryError)) or "DefaultCPUAllocator" in str(error):
        return (
            "The memory is full. Lower the batch size (--training.batch_size with more gradient_accumulation, or "
            f"--batch-size of generate) or the lengths. {' '.join(str(error).split())[:300]}".rstrip()
        )
    # A file of the user's that is missing, full or forbidden; without its name the reason helps nobody.
    if isinstance(error, OSError):
        named = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        return f"{named}{error.strerror or error}."
    return None

"""Entry point of `qpeft`: finds the command, and turns our errors into one sentence and exit code 2."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

import typer
from rich.console import Console
from rich.text import Text


@dataclass(frozen=True)
class Command:
    """Where a command is: "module:function", or "module:app" for one with commands of its own.

    `takes_overrides`: whether any `--section.key value` may follow.
    """

    place: str
    takes_overrides: bool = False

    def add_to(self, app: typer.Typer, name: str) -> None:
        """Import it and make it known to `app`."""
        module, _, attribute = self.place.partition(":")
        found = getattr(import_module(module), attribute)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name)
        else:
            settings = {"allow_extra_args": True, "ignore_unknown_options": True} if self.takes_overrides else {}
            app.command(name, context_settings=settings)(found)


COMMANDS = {
    "train": Command("qpeft_cli.train:train", takes_overrides=True),
    "eval": Command("qpeft_cli.evaluate:evaluate"),
    "generate": Command("qpeft_cli.generate:generate"),
    "chat": Command("qpeft_cli.chat:chat"),
    "inspect": Command("qpeft_cli.inspect:inspect", takes_overrides=True),
    "jobs": Command("qpeft_cli.jobs:jobs"),
    "devices": Command("qpeft_cli.devices:devices"),
}
"""In the order of `qpeft --help`. Their files import `qpeft` inside functions only: tests/cli/test_start.py."""


SECONDS_AFTER_FIRST = 10.0
"""That other processes of a launcher wait before they say what stopped them."""


def application(arguments: Sequence[str]) -> typer.Typer:
    """The command line that these arguments need: the one command that they name, or all where they name none."""
    app = typer.Typer(
        name="qpeft",
        help="Fine-tune language models with quantum tensor hybrid adapters.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        callback=lambda: None,  # without it, a single command would take no name
    )
    for name in [name for name in arguments[:1] if name in COMMANDS] or COMMANDS:
        COMMANDS[name].add_to(app, name)
    return app


def main() -> None:
    """Run the command line."""
    # Set before tokenizers starts threads: forked data workers would otherwise print a warning each.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    # Deprecations among transformers, peft and trl: nothing that a user of ours can act on.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft|trl)\.")
    try:
        application(sys.argv[1:])(prog_name="qpeft")
    except Exception as error:
        from qpeft.errors import QpeftError  # noqa: PLC0415  (takes seconds to import)

        if not isinstance(error, QpeftError):
            raise
        # What all processes of a launcher met, the first says; the launcher then ends the others.
        if int(os.environ.get("RANK", "0")):
            time.sleep(SECONDS_AFTER_FIRST)
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        console.print(Text.assemble(("error: ", "bold red"), str(error)))
        sys.exit(2)

"""`qpeft generate`."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def generate(
    folder: Annotated[Path, typer.Argument(help="Folder of a trained adapter.")],
    prompts: Annotated[
        list[str] | None, typer.Argument(help="Questions; '-' reads one per line from the input.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 256,
    base: Annotated[bool, typer.Option("--base", help="Also show the base model's answers.")] = False,
    device: Annotated[str | None, typer.Option(help="Quantum device that evaluates the circuits.")] = None,
    device_option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Of a recipe's device section, such as shots=500 or options.url=..."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Agree that the device gets angles of your text.")] = False,
) -> None:
    """Answer questions with a trained adapter, greedily."""
    from qpeft.data import Message  # noqa: PLC0415  (takes seconds to import)
    from qpeft.errors import DataError  # noqa: PLC0415
    from qpeft.evaluation import generate as answers_of  # noqa: PLC0415
    from qpeft_cli.adapted import load_adapted  # noqa: PLC0415

    texts = [line for text in prompts or ["-"] for line in (_lines() if text == "-" else [text])]
    if not texts or not all(text.strip() for text in texts):
        raise DataError("There is no question: give one as an argument, or one per line on the standard input.")
    adapted = load_adapted(folder)
    system = adapted.recipe.data.system
    first = [Message("system", system)] if system else []
    questions = [[*first, Message("user", text)] for text in texts]

    console = Console(highlight=False, soft_wrap=True, markup=False)
    before: list[str] = []
    if base:
        with adapted.without_adapter(True):
            before = answers_of(adapted.model, adapted.tokenizer, questions, max_new_tokens=max_new_tokens)
    with contextlib.ExitStack() as stack:
        if device is not None:
            from qpeft_cli.on_device import answering_on, section_for  # noqa: PLC0415

            section = section_for(adapted.recipe, device, device_option or [])
            stack.enter_context(
                answering_on(
                    section, adapted, folder, questions, max_new_tokens=max_new_tokens, yes=yes, console=console
                )
            )
        after = answers_of(adapted.model, adapted.tokenizer, questions, max_new_tokens=max_new_tokens)
    for number, text in enumerate(texts):
        if len(texts) > 1 or base:
            console.print(f"> {text}", style="bold")
        if base:
            console.print(f"[base model] {before[number]}", style="dim")
        console.print(after[number])


def _lines() -> list[str]:
    return [line.rstrip("\n") for line in sys.stdin if line.strip()]

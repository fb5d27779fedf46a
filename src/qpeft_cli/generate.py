"""`qpeft generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qpeft_cli.options import AnsweringFolder, SystemMessage, TrustRemoteCode
from qpeft_cli.terminal import plain_console


def generate(
    folder: AnsweringFolder,
    prompts: Annotated[
        list[str] | None, typer.Argument(help="Questions; '-' reads one per line from the input.")
    ] = None,
    input_file: Annotated[
        Path | None,
        typer.Option("--input", help="Questions: .jsonl, .json, .csv or .parquet rows, or .txt with one a line."),
    ] = None,
    output_file: Annotated[
        Path | None, typer.Option("--output", help="JSON lines: the rows of --input, with what was generated.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions answered at once.")] = 16,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 256,
    system: SystemMessage = None,
    base: Annotated[bool, typer.Option("--base", help="Also the base model's answers.")] = False,
    device: Annotated[str | None, typer.Option(help="Quantum device that evaluates the circuits.")] = None,
    device_option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Of a recipe's device section, such as shots=500 or options.url=..."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Agree that the device gets angles of your text.")] = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Answer questions with a trained adapter, greedily: those given here, or a file of them.

    A file that was interrupted is continued by the same command.

    \b
    Example:
      qpeft generate runs/mine "Ada has 12 shells and finds 5 more. How many has she?"
    """
    if (input_file is None) != (output_file is None):
        raise typer.BadParameter("--input (questions) and --output (answers) need each other: give both, or neither.")
    if input_file is not None and prompts:
        raise typer.BadParameter("Questions come from --input or from the command line, not from both.")
    if device is None and device_option:
        raise typer.BadParameter("--device-option sets an option of a quantum device: name that too, by --device.")
    from qpeft_cli.answering import Answering, answer_file, answer_texts

    options = Answering(
        folder,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        system=system,
        base=base,
        device=device,
        device_options=tuple(device_option or ()),
        yes=yes,
        trust_remote_code=trust_remote_code,
        console=plain_console(),
    )
    # Without any question the input is read, so that a pipe needs no dash.
    if input_file is None or output_file is None:
        answer_texts(options, prompts or ["-"])
        return
    try:
        answer_file(options, input_file, output_file)
    except KeyboardInterrupt as interrupt:
        typer.echo(f"\ninterrupted; what is in {output_file} is whole: the same command continues it", err=True)
        raise typer.Exit(130) from interrupt

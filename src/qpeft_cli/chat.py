"""`qpeft chat`."""

from __future__ import annotations

from typing import Annotated

import typer

from qpeft_cli.options import AnsweringFolder, SystemMessage, TrustRemoteCode
from qpeft_cli.terminal import plain_console, typed_lines


def chat(
    folder: AnsweringFolder,
    system: SystemMessage = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 512,
    temperature: Annotated[float, typer.Option(min=0, help="0 takes the most likely token; more is more random.")] = 0,
    top_p: Annotated[
        float, typer.Option(min=0.01, max=1, help="Draw among the likeliest tokens of this probability together.")
    ] = 1,
    top_k: Annotated[int, typer.Option(min=0, help="Draw among this many of the likeliest tokens; 0 for all.")] = 0,
    seed: Annotated[int | None, typer.Option(min=0, help="Of what is drawn.")] = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Talk with a trained adapter, and with its base model beside it.

    /both shows both models' answers, /help lists what else there is. Ctrl-C stops an answer, Ctrl-D leaves. Questions
    can be piped in, one per line.

    \b
    Example:
      qpeft chat runs/mine
    """
    from transformers import set_seed

    from qpeft.evaluation.generation import Sampling
    from qpeft_cli.adapted import load_onto, read_source
    from qpeft_cli.conversation import Conversation

    console = plain_console()
    source = read_source(folder)
    with console.status("loading the model"):
        adapted = load_onto(source.model, folder, trust_remote_code=trust_remote_code)
    # After loading, which may draw random numbers of its own.
    if seed is not None:
        set_seed(seed)
    conversation = Conversation(
        adapted,
        console,
        system=source.system if system is None else system,
        max_new_tokens=max_new_tokens,
        sampling=Sampling(temperature=temperature, top_p=top_p, top_k=top_k),
    )
    conversation.run(typed_lines(console))

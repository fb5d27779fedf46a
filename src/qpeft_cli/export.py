"""`qpeft export`."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import typer
from rich.console import Console

from qpeft_cli.options import (
    AdapterFolder,
    Calibration,
    CalibrationTokens,
    Force,
    HeldOutData,
    HeldOutLimit,
    NewFolder,
    Tolerance,
    TrustRemoteCode,
)


def export(
    folder: AdapterFolder,
    output: NewFolder,
    form: Annotated[Literal["lora"], typer.Option("--format", help="What to write: a plain PEFT LoRA.")] = "lora",
    rank: Annotated[
        int | None, typer.Option(min=1, help="Highest rank; without it the adapter's own, or 64 where that is higher.")
    ] = None,
    constant: Annotated[
        Literal["absorb", "keep", "drop"],
        typer.Option(
            help="Constant of a map fitted to a circuit: fit without one (absorb), keep it as LoRA's bias (plain "
            "PEFT only), or drop it."
        ),
    ] = "absorb",
    calibration: Calibration = None,
    calibration_tokens: CalibrationTokens = 4096,
    data: HeldOutData = None,
    limit: HeldOutLimit = None,
    tolerance: Tolerance = 0.05,
    force: Force = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Write a trained adapter as a plain LoRA, for where qpeft is not, and report what that loses.

    A plain LoRA is copied. A circuit is replaced by the linear map that comes nearest to it on calibration text.
    """
    from qpeft.exporting import export_lora
    from qpeft.exporting.updates import copies_lora
    from qpeft.runs.bars import Bars
    from qpeft_cli.exports import load, recipe_kept, show

    console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
    with Bars(Console(stderr=True)) as bars:
        loaded = load(
            folder,
            output,
            calibration=calibration,
            calibration_tokens=calibration_tokens,
            data=data,
            limit=limit,
            trust_remote_code=trust_remote_code,
            needs_text=lambda model: not copies_lora(model, rank),
            on_progress=bars,
        )
        recipe = loaded.adapted.recipe
        report = export_lora(
            loaded.adapted.adapter,
            output,
            calibration=loaded.calibration,
            held_out=loaded.held_out,
            tokenizer=loaded.adapted.tokenizer,
            recipe=recipe_kept(recipe),
            rank=rank,
            constant=constant,
            tolerance=math.inf if force else tolerance,
            base_name=recipe.model.name,
            notice=recipe.output.notice,
            on_progress=bars,
        )
    show(report, output, console)
    console.print(f"saved {form} to {output}")

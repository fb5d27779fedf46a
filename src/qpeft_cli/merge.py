"""`qpeft merge`."""

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


def merge(
    folder: AdapterFolder,
    output: NewFolder,
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        typer.Option(help="Type of the weights in the files; 'auto' for that of the base model in training."),
    ] = "auto",
    constant: Annotated[
        Literal["keep", "absorb", "drop"],
        typer.Option(
            help="Constant of a map fitted to a circuit: keep it where a layer has a bias, else fit without one "
            "(absorb); or drop it."
        ),
    ] = "keep",
    calibration: Calibration = None,
    calibration_tokens: CalibrationTokens = 4096,
    data: HeldOutData = None,
    limit: HeldOutLimit = None,
    tolerance: Tolerance = 0.05,
    force: Force = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Write the base model with a trained adapter in its weights, and check the files by reading them back.

    A circuit is replaced by the linear map that comes nearest to it on calibration text.
    """
    from qpeft.exporting import merge_adapter
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
            needs_text=lambda _: True,
            on_progress=bars,
        )
        adapted, recipe = loaded.adapted, loaded.adapted.recipe
        report = merge_adapter(
            adapted.adapter,
            adapted.tokenizer,
            output,
            calibration=loaded.calibration,
            held_out=loaded.held_out,
            recipe=recipe_kept(recipe),
            constant=constant,
            tolerance=math.inf if force else tolerance,
            dtype=dtype,
            base_name=recipe.model.name,
            notice=recipe.output.notice,
            on_progress=bars,
        )
    show(report, output, console, written="merged model")
    console.print(f"saved the merged model to {output}")

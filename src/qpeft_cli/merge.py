"""`qpeft merge`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console


def merge(
    folder: Annotated[Path, typer.Argument(help="Folder of a trained adapter.")],
    output: Annotated[Path, typer.Argument(help="New or empty folder.")],
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        typer.Option(help="Type of the weights in the files; 'auto' for that of the base model in training."),
    ] = "auto",
    constant: Annotated[
        Literal["keep", "absorb", "drop"],
        typer.Option(help="Of fitted maps: keep it where a layer has a bias, else absorb it; or leave it out."),
    ] = "keep",
    calibration: Annotated[
        str | None, typer.Option(help="Examples to fit linear maps on; without it, those of the training run.")
    ] = None,
    calibration_tokens: Annotated[int, typer.Option(min=1, help="How many tokens of them to use.")] = 4096,
    data: Annotated[str | None, typer.Option(help="Held-out examples; without it, those of the training run.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use the first so many held-out examples only.")] = None,
    tolerance: Annotated[
        float, typer.Option(min=0, help="Share of the adapter's improvement in held-out loss that may be lost.")
    ] = 0.05,
    force: Annotated[bool, typer.Option("--force", help="Write it whatever is lost.")] = False,
) -> None:
    """Write the base model with a trained adapter in its weights, and check the files by reading them back.

    A circuit is replaced by the linear map that comes nearest to it on calibration text.
    """
    from qpeft.exporting import merge_adapter  # noqa: PLC0415
    from qpeft_cli.exports import load, show  # noqa: PLC0415  (takes seconds to import)

    console = Console(highlight=False, soft_wrap=True)
    loaded = load(
        folder, output, calibration=calibration, calibration_tokens=calibration_tokens, data=data, limit=limit
    )
    adapted, recipe = loaded.adapted, loaded.adapted.recipe
    with console.status("") as status:
        report = merge_adapter(
            adapted.model,
            adapted.tokenizer,
            output,
            calibration=loaded.calibration,
            held_out=loaded.held_out,
            constant=constant,
            tolerance=math.inf if force else tolerance,
            dtype=dtype,
            base_name=recipe.model.name,
            notice=recipe.output.notice,
            on_stage=status.update,
        )
    show(report, console)
    console.print(f"saved the merged model to {output}")

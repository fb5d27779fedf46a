"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run Python code that comes with the base model.")
]
"""Said again for every command: what a folder says of it may come from anybody."""

AdapterFolder = Annotated[Path, typer.Argument(help="Folder of a trained adapter.")]
AnsweringFolder = Annotated[
    Path, typer.Argument(help="Folder of a trained adapter, of an exported one, or of a model that `merge` wrote.")
]
NewFolder = Annotated[Path, typer.Argument(help="New or empty folder.")]

# Of `export` and `merge`.
Calibration = Annotated[
    str | None, typer.Option(help="Examples to fit linear maps on; without it, those of the training run.")
]
CalibrationTokens = Annotated[int, typer.Option(min=1, help="How many tokens of calibration text to use.")]
HeldOutData = Annotated[str | None, typer.Option(help="Held-out examples; without it, those of the training run.")]
HeldOutLimit = Annotated[int | None, typer.Option(min=1, help="Use only this many held-out examples, from the start.")]
Tolerance = Annotated[
    float, typer.Option(min=0, help="Share of the adapter's improvement in held-out loss that may be lost.")
]
Force = Annotated[bool, typer.Option("--force", help="Write it however much is lost.")]

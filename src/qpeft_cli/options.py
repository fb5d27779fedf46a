"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run Python code that comes with the base model.")
]
"""Said again for every command: what a folder says of it may come from anybody."""

"""What a user must know before a device of somebody else's gets anything: the bill, and what leaves the machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import typer
from filelock import FileLock
from rich.console import Console

from qpeft.devices.journal import default_path
from qpeft.errors import DeviceError
from qpeft.runs import write_atomically
from qpeft.training.bill import Bill

NOTICE = (
    "Rotation angles computed from your text will leave this machine: {device} gets them with every circuit. Texts and "
    "weights do not, but angles depend on them."
)


def asking(console: Console, *, yes: bool) -> Callable[[Bill], None]:
    """A function that lets a bill pass if nothing leaves the machine or the user agreed, once for each recipient."""

    def confirm(bill: Bill) -> None:
        device = bill.capabilities.recipient or bill.capabilities.name
        if not bill.capabilities.is_remote or device in _agreed():
            return
        console.print(NOTICE.format(device=device))
        if not yes and not sys.stdin.isatty():
            raise DeviceError(f"Nobody is here to agree that angles go to {device}. Say --yes. Nothing was sent.")
        if not yes and not typer.confirm("Go on?"):
            raise DeviceError("You did not agree. Nothing was sent.")
        _remember(device)

    return confirm


def _path() -> Path:
    return default_path().with_name("agreed.json")


def _agreed() -> dict[str, str]:
    """Recipients that the user agreed to, and when."""
    try:
        agreed = json.loads(_path().read_text(encoding="utf-8"))
        if not isinstance(agreed, dict):
            raise ValueError("it holds no names with dates")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DeviceError(
            f"{_path()} cannot be read, so it is unknown what you agreed to: {error}. Delete it to be asked again; "
            "nothing was sent."
        ) from error
    return agreed


def _remember(device: str) -> None:
    _path().parent.mkdir(parents=True, exist_ok=True)
    # Other processes may be told of other devices at the same time.
    with FileLock(_path().with_suffix(".lock")):
        now = datetime.now().isoformat(timespec="seconds")
        write_atomically(_path(), json.dumps(_agreed() | {device: now}) + "\n")

"""What a user must know before somebody else's machine gets anything, and whether the user agreed to it."""

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
NO_TEXT = "What {device} gets are trained angles: no text of yours enters them, so nothing has to be agreed to."


def asking(console: Console, *, yes: bool) -> Callable[[Bill], None]:
    """A function that lets a bill pass if nothing leaves the machine or the user agreed, once for each recipient."""

    def confirm(bill: Bill) -> None:
        device = bill.capabilities.recipient or bill.capabilities.name
        if not bill.capabilities.is_remote or device in _agreed():
            return
        if not bill.text_enters:
            console.print(NO_TEXT.format(device=device))
            return
        _ask(console, NOTICE.format(device=device), f"angles go to {device}", yes=yes)
        _remember(device)

    return confirm


def agree_to_texts(console: Console, notice: str, *, recipient: str, texts: str, yes: bool) -> None:
    """Return if the user agrees that texts leave this machine, or did so before for the same texts and recipient.

    The notice is shown in any case: how much is sent may be another.

    Args:
        console: where the notice goes.
        notice: what is sent where, in words.
        recipient: its address.
        texts: SHA-256 of them.
        yes: whether the user agreed on the command line.

    Raises: DeviceError if not; nothing may then be sent.
    """
    name = f"{recipient} for the texts {texts}"
    if name in _agreed():
        console.print(notice)
        return
    _ask(console, notice, f"texts go to {recipient}", yes=yes)
    _remember(name)


def _ask(console: Console, notice: str, what: str, *, yes: bool) -> None:
    console.print(notice)
    if not yes and not sys.stdin.isatty():
        raise DeviceError(f"Nobody is here to agree that {what}. Say --yes. Nothing was sent.")
    if not yes and not typer.confirm("Go on?"):
        raise DeviceError("You did not agree. Nothing was sent.")


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

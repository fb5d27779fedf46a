"""What a user types or pipes in."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from rich.console import Console


def typed_lines(console: Console) -> Iterator[str]:
    """Lines from the keyboard until Ctrl-D, or from a pipe until its end; of a pipe each is shown.

    Raises: DataError for piped bytes that are not UTF-8.
    """
    if not sys.stdin.isatty():
        for line in piped_lines():
            console.print(f"> {line}", style="bold")
            yield line
        return
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (history and editing, where the system has them)
    while (typed := _typed_line(console)) is not None:
        yield typed


def _typed_line(console: Console) -> str | None:
    """A line, empty if it was given up by Ctrl-C; None at Ctrl-D."""
    try:
        return input("> ")
    except EOFError:
        console.print()
        return None
    except KeyboardInterrupt:
        console.print("\n/exit or Ctrl-D leaves.", style="dim")
        return ""


def piped_lines() -> Iterator[str]:
    """Lines of the standard input that are not blank. Raises: DataError for bytes that are not UTF-8."""
    from qpeft.errors import DataError

    for number, line in enumerate(sys.stdin.buffer, start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise DataError(
                f"Line {number} of the standard input is not UTF-8 (byte {error.start + 1} of the line)."
            ) from error
        if text:
            yield text

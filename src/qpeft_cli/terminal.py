"""What commands share at the terminal: consoles, lines that are typed or piped in, and names that fit into tables."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterable, Iterator

from rich.console import Console

WIDTH_OF_PIPES = 100_000
"""Wide enough for any number of columns; a table takes no more than it needs."""


def plain_console(*, for_tables: bool = False) -> Console:
    """Return a console that shows texts as they are, since names and answers hold brackets and colons.

    Args:
        for_tables: whether lines that are piped to another program must not be cut to 80 columns.
    """
    width = WIDTH_OF_PIPES if for_tables and not sys.stdout.isatty() else None
    return Console(highlight=False, soft_wrap=True, markup=False, emoji=False, width=width)


def typed_lines(console: Console) -> Iterator[str]:
    """Yield lines from the keyboard until Ctrl-D, or from a pipe until its end; of a pipe each is shown.

    Raises: DataError for piped bytes that are not UTF-8.
    """
    if not sys.stdin.isatty():
        for line in piped_lines():
            console.print(f"> {line}", style="bold")
            yield line
        return
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (history and editing, where the system has them)
    while True:
        try:
            line = input("> ")
        except EOFError:  # noqa: PERF203
            console.print()
            return
        except KeyboardInterrupt:
            # It gives up a line, not the conversation.
            console.print("\n/exit or Ctrl-D leaves.", style="dim")
        else:
            yield line


def piped_lines() -> Iterator[str]:
    """Yield lines of the standard input that are not blank. Raises: DataError for bytes that are not UTF-8."""
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


def broken(name: str, width: int) -> str:
    """Return a long name in lines of this width at most, broken where its parts end; a longer part stays whole."""
    # Tables break anywhere in a word, and half of `q_proj` is the name of something else.
    lines = [""]
    for part in re.findall(r"[^./_-]*[./_-]+|[^./_-]+$", name):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def shortened(text: str, width: int) -> str:
    """Return the beginning of a text, in one line of this width at most, with a mark where something is left out."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1].rstrip() + "\N{HORIZONTAL ELLIPSIS}"


def kinds_of(names: Iterable[str]) -> tuple[str, dict[str, list[str]]]:
    """Return what all names begin with, and the names by what is left of them, where numbers of layers are stars.

    So model.layers.0.mlp.up_proj and model.layers.1.mlp.up_proj are two of the kind `up_proj`, both in
    `model.layers.*.mlp`.
    """
    found: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        kind = tuple("*" if part.isdecimal() else part for part in name.split("."))
        found.setdefault(kind, []).append(name)
    kinds = list(found)
    # At least the last part of every name stays, also where there is only one kind.
    shared = 0
    while all(len(kind) > shared + 1 and kind[shared] == kinds[0][shared] for kind in kinds):
        shared += 1
    return ".".join(kinds[0][:shared]) if kinds else "", {".".join(kind[shared:]): of for kind, of in found.items()}

"""Data sets that come with qpeft, so that a first run needs no file: `package:word_problems`."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from qpeft.errors import DataError

PREFIX = "package:"
FOLDER = Path(__file__).parent / "packaged"
PACKAGED = {
    "word_problems": "200 word problems with their equations and answers; by examples/demo/packaged_problems.py"
}
"""What each of them is, by its name."""


def packaged_file(name: str) -> Path:
    """Return the file of a data set, by its name with or without "package:". Raises: DataError if there is none."""
    plain = name.removeprefix(PREFIX)
    if plain not in PACKAGED:
        near = get_close_matches(plain, PACKAGED)
        hint = (
            f"did you mean {PREFIX}{near[0]}?" if near else f"there are {', '.join(PREFIX + one for one in PACKAGED)}."
        )
        raise DataError(f"No data set {plain!r} comes with qpeft; {hint}")
    return FOLDER / f"{plain}.jsonl"


def local_path(source: str) -> Path:
    """Return where a source would be on this machine, be it a file, a name on the Hub, or a data set of ours."""
    return packaged_file(source) if source.startswith(PREFIX) else Path(source)

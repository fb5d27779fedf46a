"""What commands share that print: names that fit into tables, and layers of one kind in one row."""

from __future__ import annotations

import re
from collections.abc import Iterable


def broken(name: str, width: int) -> str:
    """A long name in lines of this width at most, broken where its parts end; a part that is longer stays whole.

    Tables break anywhere in a word, and half of `q_proj` is the name of something else.
    """
    lines = [""]
    for part in re.findall(r"[^./_-]*[./_-]+|[^./_-]+$", name):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def shortened(text: str, width: int) -> str:
    """The beginning of a text, in one line of this width at most, with a mark where something is left out."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1].rstrip() + "\N{HORIZONTAL ELLIPSIS}"


def kinds_of(names: Iterable[str]) -> tuple[str, dict[str, list[str]]]:
    """What all names begin with, and the names by what is left of them, where numbers of layers are stars.

    So model.layers.0.mlp.up_proj and model.layers.1.mlp.up_proj are two of the kind `up_proj`, both in
    `model.layers.*.mlp`.
    """
    found: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        kind = tuple("*" if part.isdecimal() else part for part in name.split("."))
        found.setdefault(kind, []).append(name)
    kinds = list(found)
    shared = 0
    while all(len(kind) > shared + 1 and kind[shared] == kinds[0][shared] for kind in kinds):
        shared += 1
    return ".".join(kinds[0][:shared]) if kinds else "", {".".join(kind[shared:]): of for kind, of in found.items()}

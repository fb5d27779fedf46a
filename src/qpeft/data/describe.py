"""Names and values as error messages show them: short, whatever the data hold."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

MAX_NAMES = 12
MAX_CHARACTERS = 60


def kind(value: object) -> str:
    """What JSON calls a value: "null", "true or false", "a number", "text", "a list", "an empty list", "an object"."""
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return "a number"
    names = {type(None): "null", bool: "true or false", str: "text", dict: "an object"}
    return names.get(type(value), type(value).__name__)


def listed(values: Iterable[object]) -> str:
    """Quoted values with commas between them; "none" if there are none. Long lists and long values are cut."""
    quoted = [quote(value) for value in islice(values, MAX_NAMES + 1)]
    if len(quoted) > MAX_NAMES:
        quoted[-1] = "..."
    return ", ".join(quoted) or "none"


def quote(value: object) -> str:
    """`value` in quotes if it is text, else what kind of value it is; cut to `MAX_CHARACTERS`."""
    if not isinstance(value, str):
        return kind(value)
    return repr(value if len(value) <= MAX_CHARACTERS else value[:MAX_CHARACTERS] + "...")

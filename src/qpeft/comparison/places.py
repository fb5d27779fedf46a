"""Values without places on the machine where they were made: a report tells of a study, not of somebody's disk."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

FOLDERS = re.compile(r"""(?:file://|(?<![\w./\\})]))(?:[A-Za-z]:[\\/]|/)(?:[^\s/\\'"<>|:,;]+[\\/])+""")
"""Of an absolute path inside a text, all but the last part; addresses of the web and relative paths do not match."""


def without_places(value: Any) -> Any:
    """The same value with absolute paths, in texts and in keys, cut to their last part."""
    if isinstance(value, str):
        return _without_folders(value)
    if isinstance(value, Mapping):
        found: dict[str, Any] = {}
        for key, inner in value.items():
            name = _without_folders(key)
            while name in found:  # files of one name in two folders stay two
                name += "'"
            found[name] = without_places(inner)
        return found
    if isinstance(value, list | tuple):
        return [without_places(inner) for inner in value]
    return value


def _without_folders(text: str) -> str:
    path = PureWindowsPath(text) if "\\" in text else PurePosixPath(text)
    if path.is_absolute() and len(path.parts) > 2 and "\n" not in text and len(text) < 300 and ": " not in text:
        return path.name
    return FOLDERS.sub("", text)

"""Where the journal lies unless the user says otherwise."""

from __future__ import annotations

import os
import sys
from pathlib import Path

FILE_NAME = "journal.sqlite"


def default_path() -> Path:
    """journal.sqlite in the folder `qpeft` of the user's data folder; nothing is made.

    The data folder is $XDG_DATA_HOME or ~/.local/share; on macOS ~/Library/Application Support; on Windows
    %LOCALAPPDATA%.
    """
    if sys.platform == "darwin":
        folder = Path.home() / "Library/Application Support"
    elif sys.platform == "win32":
        folder = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local")
    else:
        folder = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share")
    return folder / "qpeft" / FILE_NAME

"""Where the journal lies unless the user says otherwise."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from platformdirs import user_data_path

FILE_NAME = "journal.sqlite"


def default_path() -> Path:
    """Return where the user's journal is, or would be; nothing is made.

    That is `journal.sqlite` in the folder `qpeft` of the user's data folder: $XDG_DATA_HOME or ~/.local/share; on macOS
    ~/Library/Application Support; on Windows %LOCALAPPDATA%.
    """
    place, former = user_data_path("qpeft", appauthor=False) / FILE_NAME, _former_path()
    # It holds jobs that were paid for, so one that an earlier version wrote elsewhere goes on where it is.
    return former if former.is_file() and not place.exists() else place


def _former_path() -> Path:
    """Return where versions before platformdirs had it.

    Another place for a relative $XDG_DATA_HOME, for $XDG_DATA_HOME on macOS, and for a changed %LOCALAPPDATA%.
    """
    if sys.platform == "darwin":
        folder = Path.home() / "Library/Application Support"
    elif sys.platform == "win32":
        folder = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local")
    else:
        folder = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share")
    return folder / "qpeft" / FILE_NAME

"""The checkpoints of a run: folders named checkpoint-STEP, each whole because it was renamed into place.

What transformers writes is joined by `qpeft.json`: the run that it is of, the size of every file, and what we remember
beyond transformers. So a checkpoint of another run, or one that was cut short later, is known for what it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qpeft.errors import OutputError

SEAL = "qpeft.json"
ADAPTER = "adapter_model.safetensors"
_REQUIRED = (ADAPTER, "optimizer.pt", "scheduler.pt", "trainer_state.json")
_NAME = re.compile(r"checkpoint-\d+")


def seal(folder: Path, *, run: str, state: Mapping[str, Any]) -> None:
    """Say in a folder that is being written what is in it and of which run."""
    sizes = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
    text = json.dumps({"run": run, "files": sizes, "state": state}, indent=2)
    (folder / SEAL).write_text(text + "\n", encoding="utf-8")


def checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints in `folder`, earliest step first; none if there is no such folder."""
    return [path for path in _named(folder) if damage(path) is None]


def damaged_checkpoints(folder: Path) -> dict[str, str]:
    """Names of the others, and what is wrong with them."""
    found = {path.name: damage(path) for path in _named(folder)}
    return {name: problem for name, problem in found.items() if problem is not None}


def damage(path: Path) -> str | None:
    """What keeps a checkpoint from being continued, a part of a sentence; None if it is whole."""
    try:
        sizes = dict(_read(path)["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"{SEAL} is missing or damaged"
    if lacking := [name for name in _REQUIRED if not sizes.get(name)]:
        return f"{lacking[0]} was never in it"
    for name, size in sizes.items():
        file = path / name
        found = file.stat().st_size if file.is_file() else None
        if found != size:
            return f"{name} is missing" if found is None else f"{name} has {found:,} of {size:,} bytes"
    return None


def saved_state(path: Path, *, run: str) -> dict[str, Any]:
    """What a whole checkpoint remembers beyond transformers. Raises: OutputError if it is of another run."""
    stored = _read(path)
    if stored["run"] != run:
        raise OutputError(
            f"{path} is a checkpoint of another run: its recipe or data are not those of the run in this folder. Take "
            "it out of the folder, and --resume continues from the run's own checkpoints, or from the start."
        )
    state: dict[str, Any] = stored["state"]
    return state


def _read(path: Path) -> dict[str, Any]:
    stored: dict[str, Any] = json.loads((path / SEAL).read_text(encoding="utf-8"))
    return stored


def _named(folder: Path) -> list[Path]:
    paths = [path for path in (folder.iterdir() if folder.is_dir() else ()) if _NAME.fullmatch(path.name)]
    return sorted(paths, key=lambda path: int(path.name.rpartition("-")[2]))

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
    """Write into a folder, the last of its files, what is in it and of which run.

    Args:
        folder: still under its temporary name.
        run: fingerprint of the run.
        state: what a resumed run must know beyond transformers' files, as JSON has it.
    """
    # In subfolders too: TRL keeps the adapter of its reference model in one.
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    sizes = {file.relative_to(folder).as_posix(): file.stat().st_size for file in files}
    text = json.dumps({"run": run, "files": sizes, "state": state}, indent=2)
    (folder / SEAL).write_text(text + "\n", encoding="utf-8")


def checkpoints(folder: Path) -> list[Path]:
    """Return the whole checkpoints in `folder`, earliest step first; it need not exist."""
    return [path for path in _named(folder) if damage(path) is None]


def damaged_checkpoints(folder: Path) -> dict[str, str]:
    """Return what is wrong with each of the others, by name."""
    found = {path.name: damage(path) for path in _named(folder)}
    return {name: problem for name, problem in found.items() if problem is not None}


def damage(path: Path) -> str | None:
    """Return why a checkpoint cannot be continued, as a part of a sentence; None if it is whole."""
    try:
        sizes = dict(json.loads((path / SEAL).read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"{SEAL} is missing or damaged"
    if lacking := [name for name in _REQUIRED if not sizes.get(name)]:
        return f"{lacking[0]} was never in it"
    # Sizes and no hashes: what goes wrong is a copy cut short, and hashing gigabytes at every start takes long.
    for name, size in sizes.items():
        file = path / name
        found = file.stat().st_size if file.is_file() else None
        if found != size:
            return f"{name} is missing" if found is None else f"{name} has {found:,} of {size:,} bytes"
    return None


def saved_state(path: Path, *, run: str) -> dict[str, Any]:
    """Return what a whole checkpoint holds beyond transformers' files. Raises: OutputError if it is of another run."""
    stored = json.loads((path / SEAL).read_text(encoding="utf-8"))
    if stored["run"] != run:
        raise OutputError(
            f"{path} is a checkpoint of another run: its recipe or data are not those of the run in this folder. Take "
            "it out of the folder, and --resume continues from the run's own checkpoints, or from the start."
        )
    state: dict[str, Any] = stored["state"]
    return state


def _named(folder: Path) -> list[Path]:
    paths = [path for path in (folder.iterdir() if folder.is_dir() else ()) if _NAME.fullmatch(path.name)]
    # By number: as text, step 100 comes before step 50.
    return sorted(paths, key=lambda path: int(path.name.rpartition("-")[2]))

"""The checkpoints of a run: folders named checkpoint-STEP, each whole because it was renamed into place."""

from __future__ import annotations

import re
from pathlib import Path

_NAME = re.compile(r"checkpoint-(\d+)")
_REQUIRED = ("adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json", "order.txt")


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints in `folder`, earliest step first; none if there is no such folder."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        match = _NAME.fullmatch(path.name)
        if match and all((path / name).is_file() and (path / name).stat().st_size for name in _REQUIRED):
            found.append((int(match[1]), path))
    return [path for _, path in sorted(found)]

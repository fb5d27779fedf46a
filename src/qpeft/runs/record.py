"""The record of a run: run.json in its folder, with everything needed to tell what happened and to do it again."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from qpeft.errors import OutputError
from qpeft.runs.files import write_atomically

FILE_NAME = "run.json"
PACKAGES = ("qpeft", "torch", "transformers", "peft", "accelerate", "datasets", "numpy", "safetensors")


def environment() -> dict[str, Any]:
    """Versions and machine, for a record."""
    import torch  # noqa: PLC0415  (records are also read where nothing is computed)

    return {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "command": sys.argv,
    }


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write run.json. Raises: OutputError if the disk refuses."""
    write_atomically(folder / FILE_NAME, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def no_run(folder: Path) -> str:
    """What to say of a path without a record."""
    if not folder.exists():
        return f"{folder} does not exist. 'qpeft runs list' shows the runs there are."
    return f"{folder} holds no {FILE_NAME}, so it is no folder of a qpeft run."


def read_record(folder: Path) -> dict[str, Any]:
    """Read run.json: at least the run's state and recipe. Raises: OutputError if there is none or it is damaged."""
    path = folder / FILE_NAME
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise OutputError(no_run(folder)) from error
    except (OSError, ValueError, RecursionError) as error:
        raise OutputError(f"{path} cannot be read: {error}.") from error
    if not isinstance(record, dict):
        raise OutputError(f"{path} does not hold a record.")
    parts = (("state", str), ("recipe", dict))
    if lacking := [name for name, kind in parts if not isinstance(record.get(name), kind)]:
        raise OutputError(f"{path} has no {' and no '.join(lacking)}, so it is damaged.")
    return record


def held_out_ends(record: Mapping[str, Any]) -> dict[int, float]:
    """Held-out losses before and after training, as far as they were measured, by the step that they belong to."""
    best = record.get("best")
    last = best["step"] if best and best["kept"] else record["steps"]
    measured = ((0, record.get("before")), (last, record.get("after")))
    return {step: scores["loss"] for step, scores in measured if scores}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

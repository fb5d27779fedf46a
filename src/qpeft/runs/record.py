"""The record of a run: run.json in its folder, with everything needed to tell what happened and to do it again."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from qpeft.errors import OutputError
from qpeft.runs.files import write_atomically

FILE_NAME = "run.json"
PACKAGES = ("qpeft", "torch", "transformers", "peft", "accelerate", "datasets", "numpy", "safetensors")


def environment() -> dict[str, Any]:
    """Return versions and machine, for a record."""
    import torch  # noqa: PLC0415  (records are also read where nothing is computed)

    # By their distributions, since to ask a package itself is to import it; some may not be installed.
    found = {name: next((one.version for one in distributions(name=name)), None) for name in PACKAGES}
    return {
        "versions": {"python": platform.python_version(), **found},
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "command": sys.argv,
    }


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write run.json. Raises: OutputError if the disk refuses."""
    write_atomically(folder / FILE_NAME, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def no_run(folder: Path) -> str:
    """Return a sentence about a path without a record."""
    if not folder.exists():
        return f"{folder} does not exist. 'qpeft runs list' shows the runs there are."
    return f"{folder} holds no {FILE_NAME}, so it is no folder of a qpeft run."


def read_record(folder: Path) -> dict[str, Any]:
    """Return what run.json holds, at least state and recipe. Raises: OutputError if it is damaged or absent."""
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
    """Return the held-out losses before and after training that were measured, by the step that they belong to."""
    # What is measured after training is the adapter that was kept, which need not be that of the last step.
    best = record.get("best")
    last = best["step"] if best and best["kept"] else record["steps"]
    measured = ((0, record.get("before")), (last, record.get("after")))
    return {step: scores["loss"] for step, scores in measured if scores}

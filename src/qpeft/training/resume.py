"""Whether a folder holds the run that is to be continued, and what tells one run from another."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from qpeft.errors import OutputError
from qpeft.runs import read_record
from qpeft.training.processes import require_as_many_processes
from qpeft.training.sections import Recipe
from qpeft.training.splits import data_hashes

MAY_DIFFER = {
    "device.max_circuits",
    "device.max_shots",
    "device.max_seconds",
    "device.final_shots",
    "training.report_to",
}
"""Limits that a run may have reached, and goes on with higher ones; what is done after the last step; and what changes
no number.
"""
ADDED = {
    "training.router_aux_loss_coef": None,
    "training.optimizer": None,
    "training.method": "sft",
    "grpo": None,
}
"""Options that came after the first checkpoints, and what is as if they were not there."""


def continue_folder(folder: Path, recipe: Recipe) -> dict[str, Any] | None:
    """Return the record of the interrupted run; None if it had not begun.

    Raises: OutputError if the folder holds another run, or a finished one.
    """
    if not folder.is_dir() or not any(folder.iterdir()):
        return None
    record = read_record(folder)
    if record["state"] == "finished":
        raise OutputError(f"The run in {folder} is finished; there is nothing to continue.")
    require_as_many_processes(folder, record)
    wanted, stored = _deciding(recipe.model_dump(mode="json")), _deciding(record["recipe"])
    differing = [name for name in sorted(wanted.keys() | stored.keys()) if wanted.get(name) != stored.get(name)]
    if differing:
        raise OutputError(
            f"The run in {folder} was started with other values of {', '.join(differing)}. Continue it with the "
            "recipe it was started with (recipe.yaml in that folder), or choose another --output.folder."
        )
    if record["data"] != (found := data_hashes(recipe.data)):
        changed = [name for name, value in found.items() if record["data"].get(name) != value]
        raise OutputError(f"The data changed since the run in {folder} was started: {', '.join(changed)}.")
    return record


def fingerprint(recipe: Recipe) -> str:
    """Return a hash of recipe and data, equal for runs whose results are equal, wherever they are written to."""
    values = _deciding(recipe.model_dump(mode="json"))
    text = json.dumps([values, data_hashes(recipe.data)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _deciding(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a recipe that can change its result, by section.key."""
    flat = {
        f"{section}.{key}" if isinstance(values, dict) else section: value
        for section, values in recipe.items()
        for key, value in (values if isinstance(values, dict) else {section: values}).items()
    }
    return {
        name: value
        for name, value in flat.items()
        # Runs of before were marked without the options that there were not yet.
        if name not in MAY_DIFFER and not name.startswith("output.") and (name not in ADDED or value != ADDED[name])
    }


class BatchHash:
    """A SHA-256 chained over the tokens of all batches so far: equal exactly if the batches and their order are.

    Checkpoints keep `digest`, so a run that was interrupted ends with the same one as a run that was not.
    """

    def __init__(self) -> None:
        self.digest = hashlib.sha256().hexdigest()

    def add(self, input_ids: torch.Tensor) -> None:
        """Count in a batch, (examples, tokens)."""
        # With the shape: the same numbers in rows of another length are another batch.
        content = f"{tuple(input_ids.shape)}".encode() + input_ids.cpu().numpy().tobytes()
        self.digest = hashlib.sha256(self.digest.encode() + content).hexdigest()

"""What LoRA export and merge share: updates made linear, measured, and refused if too much is lost."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import PeftModel

from qpeft.adapters.bridge import BaseTunerLayer
from qpeft.data import Encoded
from qpeft.errors import AdapterError, DataError, OutputError
from qpeft.exporting.comparison import compare_logits, compare_losses, trainability_restored
from qpeft.exporting.low_rank import Constant
from qpeft.exporting.report import ExportReport, layer_reports
from qpeft.exporting.updates import LinearUpdate, active_adapter, adapted_layers, copies_lora, linear_updates
from qpeft.runs import environment
from qpeft.runs.bars import OnProgress, to_nobody

EXPORT_FILE = "export_report.json"

PROBE_TOKENS = 1024
"""On which logits of adapter and export are compared."""


@dataclass(frozen=True)
class ExportPlan:
    """Layers of an adapter, their updates as linear maps, the text to compare them on, and what they are worth."""

    layers: Mapping[str, BaseTunerLayer]
    updates: Mapping[str, LinearUpdate]
    probe: Sequence[Encoded]
    report: ExportReport


def make_plan(
    model: PeftModel,
    *,
    calibration: Sequence[Encoded],
    held_out: Sequence[Encoded],
    tolerance: float,
    rank: int | None = None,
    whole: bool = False,
    constants: Mapping[str, Constant] | None = None,
    written: str = "export",
    on_progress: OnProgress = to_nobody,
) -> ExportPlan:
    """Return linear updates of the active adapter, with a report of what they keep of it.

    Without any text a LoRA that is copied as it is is not measured: there is nothing that could have been lost.

    Args:
        model, calibration, held_out, tolerance, rank, on_progress: as for `export_lora`.
        whole, constants: as for `linear_updates`.
        written: what the updates are for, in words.

    Raises: AdapterError, DataError, NotMergeableError as `linear_updates`; OutputError if more than `tolerance` is
        lost. The model is as it was.
    """
    if math.isnan(tolerance) or tolerance < 0:
        raise OutputError(f"tolerance is the share that may be lost, 0 or more; got {tolerance}.")
    if rank is not None and rank < 1:
        raise AdapterError(f"rank must be a whole number of at least 1; got {rank}.")
    layers = adapted_layers(model)
    is_measured = whole or bool(calibration or held_out) or not copies_lora(model, rank)
    probe: Sequence[Encoded] = held_out
    if is_measured and not held_out:
        if len(calibration) < 2:
            raise DataError(
                "What is written is compared with the adapter on text, and there is none: give held-out examples, or "
                "at least two examples of calibration text, of which the last eighth is kept for that."
            )
        # Text that the maps were fitted to would flatter them.
        kept = max(1, len(calibration) // 8)
        calibration, probe = calibration[:-kept], calibration[-kept:]
    probe = first_tokens(probe, PROBE_TOKENS) if is_measured else ()
    updates = linear_updates(
        model, layers, calibration, rank=rank, whole=whole, constants=constants, on_progress=on_progress
    )
    # PEFT turns training of weights on and off where adapters are switched, as they are for comparing.
    base_logits = logits = losses = None
    with trainability_restored(model):
        if is_measured:
            base_logits, logits = compare_logits(model, layers, updates, probe, on_progress=on_progress)
        if held_out:
            losses = compare_losses(model, layers, updates, held_out, on_progress=on_progress)
    method = str(model.peft_config[active_adapter(model)].peft_type.value).lower()
    tokens = max(update.fit.tokens if update.fit else 0 for update in updates.values())
    report = ExportReport(method, layer_reports(updates), base_logits, logits, losses, tokens)
    report.require(tolerance, written=written)
    return ExportPlan(layers, updates, probe, report)


def first_tokens(encoded: Sequence[Encoded], tokens: int) -> Sequence[Encoded]:
    """Return the first examples that together reach this number of tokens, or all."""
    total = 0
    for count, one in enumerate(encoded, start=1):
        total += len(one.input_ids)
        if total >= tokens:
            return encoded[:count]
    return encoded


def require_free(output: Path) -> None:
    """Raise OutputError if there is a file of that name or a folder that holds anything."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        what = "is not empty" if output.is_dir() else "is a file"
        raise OutputError(f"The output folder {output} {what}. Name one that is new or empty; nothing was changed.")


def finish_folder(folder: Path, report: ExportReport, card: str, recipe: Mapping[str, Any] | None = None) -> None:
    """Add the card, and export_report.json with the recipe of the run if it is known.

    Args:
        folder: that holds the export.
        report: what was measured of it.
        card: in Markdown.
        recipe: of the run, if it is known.
    """
    (folder / "README.md").write_text(card, encoding="utf-8")
    record = report.to_dict() | {"environment": environment()} | ({"recipe": dict(recipe)} if recipe else {})
    (folder / EXPORT_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")

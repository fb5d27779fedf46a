"""What `export` and `merge` share: adapter and texts loaded, the report as a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from qpeft.data import Encoded
from qpeft.errors import AdapterError
from qpeft.exporting import ExportReport
from qpeft.exporting.card import layer_cells
from qpeft.exporting.plan import require_free
from qpeft.training.sections import Recipe
from qpeft.training.splits import load_calibration, load_held_out
from qpeft_cli.adapted import Adapted, holds_model, load_adapted


@dataclass(frozen=True)
class Loaded:
    """An adapter on its base model, and the texts that it is measured on."""

    adapted: Adapted
    calibration: Sequence[Encoded]
    held_out: Sequence[Encoded]


def load(
    folder: Path,
    output: Path,
    *,
    calibration: str | None,
    calibration_tokens: int,
    data: str | None,
    limit: int | None,
    trust_remote_code: bool,
) -> Loaded:
    """Load what an export needs. Args are the options of the commands.

    Raises: OutputError if `output` is in use or `folder` no run; AdapterError, ModelError or DataError.
    """
    require_free(output)
    if holds_model(folder):
        raise AdapterError(
            f"{folder} holds full weights and no adapter beside them, so there is nothing to export or merge. Name the "
            "folder of the adapter."
        )
    adapted = load_adapted(folder, trust_remote_code=trust_remote_code)
    recipe = adapted.recipe
    _check_base(folder, recipe.model.name)
    options = recipe.data
    if data is not None:
        options = options.model_copy(update={"hold_out": None, "eval": data, "eval_limit": None})
    if calibration is not None and options.hold_out is None:
        # The file that was trained on may be elsewhere by now.
        options = options.model_copy(update={"train": calibration, "limit": None})
    held_out = load_held_out(options, adapted.tokenizer)
    if calibration is not None and options.hold_out is not None:
        options = options.model_copy(update={"train": calibration, "hold_out": None, "limit": None})
    training = load_calibration(options, adapted.tokenizer, seed=recipe.seed, tokens=calibration_tokens)
    return Loaded(adapted, training, held_out.encoded[:limit] if held_out else ())


def recipe_kept(recipe: Recipe) -> dict[str, Any]:
    """What an exported folder keeps of the recipe, as the model card does: not where the run was."""
    return recipe.model_dump(mode="json", exclude={"output"})


def show(report: ExportReport, console: Console, *, written: str = "export") -> None:
    """Print a report: its layers, then the whole. `written` is what it is of, in words."""
    # Whole names: layers differ at the end, where a narrow terminal would cut them off.
    layer = Column("layer", overflow="fold")
    table = Table(layer, "rank", "cut off", "variance explained", "constant", "missed")
    for name, fit in report.layers.items():
        table.add_row(name, *layer_cells(fit))
    console.print(table)
    if report.calibration_tokens:
        console.print(f"linear maps fitted on {report.calibration_tokens:,} tokens")
    logits = report.logits
    console.print(
        f"logits differ from the adapter's by {logits.maximum:.2e} at most, {logits.mean:.2e} on average; divergence "
        f"{logits.divergence:.2e} nats per token (of the base model {report.base_logits.divergence:.2e}; "
        f"{logits.tokens:,} tokens)"
    )
    if (losses := report.losses) is not None:
        console.print(
            f"held-out loss: base {losses.base:.4f}, adapter {losses.adapter:.4f}, {written} {losses.export:.4f} "
            f"({losses.tokens:,} tokens)"
        )
    console.print(f"kept: {report.kept:.2%} of {report.criterion}")
    if (reloaded := report.reloaded) is not None:
        console.print(
            f"read back from the files, logits differ from the adapter's by {reloaded.maximum:.2e} at most, "
            f"{reloaded.mean:.2e} on average ({reloaded.tokens:,} tokens)"
        )


def _check_base(folder: Path, trained_on: str) -> None:
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    named = config.get("base_model_name_or_path")
    if named != trained_on:
        raise AdapterError(
            f"{folder}: adapter_config.json names the base model {named!r}, and run.json {trained_on!r}. The two files "
            "are of different runs; put the adapter beside its own run.json."
        )

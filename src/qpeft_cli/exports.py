"""What `export` and `merge` share: adapter and texts loaded, the report as a table."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import PeftModel
from rich.console import Console
from rich.table import Column, Table

from qpeft.data import Encoded
from qpeft.errors import AdapterError
from qpeft.exporting import ExportReport, LayerReport
from qpeft.exporting.plan import require_free
from qpeft.runs.bars import OnProgress
from qpeft.training.sections import Recipe
from qpeft.training.splits import load_calibration, load_held_out
from qpeft_cli.adapted import Adapted, holds_model, load_adapted
from qpeft_cli.screen import broken, kinds_of

KIND_WIDTH = 17
"""Characters of a kind of layer in one line, so that a table fits into 80."""


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
    needs_text: Callable[[PeftModel], bool],
    on_progress: OnProgress,
) -> Loaded:
    """Load what an export needs. Args are the options of the commands; `needs_text`: whether it does, if none is named.

    Args:
        folder: of the trained adapter.
        output: new or empty folder.
        calibration: file of examples to fit linear maps on; None for those of the run.
        calibration_tokens: how many tokens of them to use.
        data: file of held-out examples; None for those of the run.
        limit: how many of them; None for all.
        trust_remote_code: whether code of the base model may run.
        needs_text: whether the adapter needs calibration text.
        on_progress: told how far it is.

    Raises: OutputError if `output` is in use or `folder` no run; AdapterError, ModelError or DataError.
    """
    require_free(output)
    if holds_model(folder):
        raise AdapterError(
            f"{folder} holds full weights and no adapter beside them, so there is nothing to export or merge. Name the "
            "folder of the adapter."
        )
    on_progress("loading the base model", 0, 0)
    adapted = load_adapted(folder, trust_remote_code=trust_remote_code)
    recipe = adapted.recipe
    _check_base(folder, recipe.model.name)
    if calibration is None and data is None and not needs_text(adapted.adapter):
        return Loaded(adapted, (), ())
    on_progress("reading the text", 0, 0)
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


def show(report: ExportReport, folder: Path, console: Console, *, written: str = "export") -> None:
    """Print a report: kinds of layers, then the whole.

    Args:
        report: of what was written.
        folder: where that is, with every layer by itself.
        console: where it goes.
        written: what it is, in words.
    """
    where, kinds = kinds_of(report.layers)
    is_fitted = any(layer.explained is not None for layer in report.layers.values())
    fitted = ("explained", "constant", "missed") if is_fitted else ()
    table = Table(Column("layers", no_wrap=True), "count", "rank", "cut off", *fitted)
    for kind, names in kinds.items():
        layers = [report.layers[name] for name in names]
        table.add_row(broken(kind, KIND_WIDTH), f"{len(layers):,}", *_of_kind(layers)[: 2 + len(fitted)])
    if where:
        console.print(f"layers of {where}:")
    console.print(table)
    worst = "; variance explained: the least; constant and missed: the most" if is_fitted else ""
    console.print(f"cut off: the most of a kind{worst}. Each layer by itself: {folder / 'README.md'}")
    if report.calibration_tokens:
        console.print(f"linear maps fitted on {report.calibration_tokens:,} tokens")
    logits = report.logits
    if logits is None or report.base_logits is None:
        console.print("The adapter is a plain LoRA: its matrices were copied as they are, and nothing is lost.")
        return
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


def _of_kind(layers: Sequence[LayerReport]) -> list[str]:
    """Rank, what cutting to it lost at most, variance explained at least, constant and what is missed at most."""
    ranks = sorted({layer.rank for layer in layers if layer.rank is not None})
    rank = f"{ranks[0]} to {ranks[-1]}" if len(ranks) > 1 else f"{ranks[0]}" if ranks else "full"
    cells = [rank, f"{max(layer.svd_error for layer in layers):.1e}"]
    explained = [layer.explained for layer in layers if layer.explained is not None]
    constants = [layer.constant_share for layer in layers if layer.constant_share is not None]
    missed = [layer.missed for layer in layers if layer.missed is not None]
    if not (explained and constants and missed):
        return [*cells, "-", "-", "-"]
    kept = " kept" if any(layer.keeps_constant for layer in layers) else ""
    return [*cells, f"{min(explained):.2%}", f"{max(constants):.1%}{kept}", f"{max(missed):.1%}"]


def _check_base(folder: Path, trained_on: str) -> None:
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    named = config.get("base_model_name_or_path")
    if named != trained_on:
        raise AdapterError(
            f"{folder}: adapter_config.json names the base model {named!r}, and run.json {trained_on!r}. The two files "
            "are of different runs; put the adapter beside its own run.json."
        )

"""What a run leaves: adapter, card, figures and record."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from peft import PeftConfig, PeftModel
from torch import Tensor

from qpeft.data import AnswerEnds, save_ends
from qpeft.runs import write_atomically, write_record
from qpeft.runs.files import disk_errors, follow_folder
from qpeft.runs.record import held_out_ends
from qpeft.training.card import model_card
from qpeft.training.figure import save_health, save_loss_curve
from qpeft.training.sections import Recipe


def save_run(
    recipe: Recipe,
    model: PeftModel,
    ends: AnswerEnds,
    weights: dict[str, Tensor],
    record: dict[str, Any],
    folder: Path,
) -> None:
    """Write everything; the record last, since it says that the run is finished. Raises: OutputError.

    `ends`: of answers. `weights`: those of the model, whole also where it is sharded (`whole_weights`).
    """
    _save_adapter(recipe, model, ends, weights, folder)
    title = f"{recipe.adapter.type} on {recipe.model.name}"
    save_loss_curve(record["history"], folder / "loss.png", title=title, ends=held_out_ends(record))
    if record["health"] is not None:
        save_health(record["health"]["layers"], folder / "health.png", title=title)
    write_atomically(folder / "README.md", model_card(recipe, record, ends))
    write_record(folder, record)


def replace_adapter(model: PeftModel, folder: Path) -> None:
    """Write a changed adapter over the one in its folder; options that stay are as they were written there.

    Raises: OutputError. The folder then holds either adapter whole: weights that lack measured values are refused.
    """
    config = folder / "adapter_config.json"
    base_model = json.loads(config.read_text(encoding="utf-8"))["base_model_name_or_path"]
    with disk_errors(folder):
        temporary = folder / ".adapter"
        shutil.rmtree(temporary, ignore_errors=True)
        model.save_pretrained(str(temporary))
        _settle_config(temporary / "adapter_config.json", model.active_peft_config, base_model)
        follow_folder(temporary)
        for name in ("adapter_model.safetensors", "adapter_config.json"):
            (temporary / name).replace(folder / name)
        shutil.rmtree(temporary)


def _save_adapter(recipe: Recipe, model: PeftModel, ends: AnswerEnds, weights: dict[str, Tensor], folder: Path) -> None:
    with disk_errors(folder):
        temporary = folder / ".adapter"
        shutil.rmtree(temporary, ignore_errors=True)
        model.save_pretrained(str(temporary), state_dict=weights)
        _settle_config(temporary / "adapter_config.json", model.active_peft_config, recipe.model.name)
        save_ends(model.generation_config, ends, temporary)
        follow_folder(temporary)
        for name in ("generation_config.json", "adapter_config.json", "adapter_model.safetensors"):
            (temporary / name).replace(folder / name)
        shutil.rmtree(temporary)


def _settle_config(path: Path, config: PeftConfig, base_model: str) -> None:
    """Make adapter_config.json the same on every machine and in every process.

    PEFT stores the folder that the base model was loaded from, and sets in the order in which they happen to lie.
    """
    values = json.loads(path.read_text(encoding="utf-8")) | {"base_model_name_or_path": base_model}
    values |= {name: sorted(value) for name, value in values.items() if isinstance(getattr(config, name, None), set)}
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")

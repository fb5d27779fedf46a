"""What a run leaves: adapter, card, figures and record, on disk and in a repository of the Hub."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from peft import PeftModel
from torch import Tensor

from qpeft.adapters import ADAPTERS
from qpeft.adapters.base import AbstractMatrixModel
from qpeft.data import AnswerEnds, ends_note, save_ends
from qpeft.errors import OutputError, RecipeError
from qpeft.evaluation import find_task
from qpeft.runs import write_atomically, write_record
from qpeft.runs.files import disk_errors, follow_folder
from qpeft.runs.record import held_out_ends
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
    """Write adapter, figures, card and record of a finished run. Raises: OutputError.

    Args:
        recipe: of the run.
        model: with the trained adapter.
        ends: of answers.
        weights: those of the model, whole also where it is sharded (`whole_weights`).
        record: what run.json will hold.
        folder: of the run.
    """
    _write_adapter(model, folder, recipe.model.name, weights=weights, ends=ends)
    title = f"{recipe.adapter.type} on {recipe.model.name}"
    save_loss_curve(record["history"], folder / "loss.png", title=title, ends=held_out_ends(record))
    if record["health"] is not None:
        save_health(record["health"]["layers"], folder / "health.png", title=title)
    write_atomically(folder / "README.md", model_card(recipe, record, ends))
    # Last, since it says that the run is finished.
    write_record(folder, record)


def replace_adapter(model: PeftModel, folder: Path) -> None:
    """Write a changed adapter over the one in its folder; options that stay are as they were written there.

    Raises: OutputError. The folder then holds either adapter whole: weights that lack measured values are refused.
    """
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    _write_adapter(model, folder, config["base_model_name_or_path"])


def _write_adapter(
    model: PeftModel,
    folder: Path,
    base_model: str,
    *,
    weights: dict[str, Tensor] | None = None,
    ends: AnswerEnds | None = None,
) -> None:
    names = ["adapter_config.json", "adapter_model.safetensors"]
    with disk_errors(folder):
        temporary = folder / ".adapter"
        shutil.rmtree(temporary, ignore_errors=True)
        model.save_pretrained(str(temporary), state_dict=weights)
        # PEFT stores the folder that the base model was loaded from, and sets in the order in which they happen to
        # lie: the file is to be the same on every machine and in every process.
        path, config = temporary / names[0], model.active_peft_config
        values = json.loads(path.read_text(encoding="utf-8")) | {"base_model_name_or_path": base_model}
        sets = {name: sorted(value) for name, value in values.items() if isinstance(getattr(config, name, None), set)}
        path.write_text(json.dumps(values | sets, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        if ends is not None:
            save_ends(model.generation_config, ends, temporary)
            names.insert(0, "generation_config.json")
        follow_folder(temporary)
        # Where a final adapter replaces another, its weights come first: its config promises measured values, which
        # the old weights lack.
        for name in names if ends is not None else reversed(names):
            (temporary / name).replace(folder / name)
        shutil.rmtree(temporary)


def model_card(recipe: Recipe, record: Mapping[str, Any], ends: AnswerEnds) -> str:
    """Return README.md of the adapter folder, in Markdown with the metadata block that model hubs read.

    Args:
        recipe: of the run.
        record: of the run.
        ends: of answers.
    """
    method = recipe.adapter.type
    # The hub's own keys, by which it finds the base model and offers code to load the adapter.
    metadata = {"base_model": recipe.model.name, "library_name": "peft", "tags": ["qpeft", method, "text-generation"]}
    parts = [
        f"---\n{yaml.safe_dump(metadata, sort_keys=False)}---",
        f"# {method.upper()} adapter for {recipe.model.name}",
    ]
    if recipe.output.notice:
        parts.append(f"> **{recipe.output.notice.strip()}**")
    values = recipe.model_dump(mode="json", exclude={"output"})
    versions = ", ".join(f"{name} {number}" for name, number in record["environment"]["versions"].items())
    making = (
        f"## Making\n\n{record['adapter']['trainable_parameters']:,} trainable parameters in "
        f"{record['adapter']['layers']} layers; {record['steps']} steps; {versions}.\n\n"
        f"```yaml\n{yaml.safe_dump(values, sort_keys=False, allow_unicode=True)}```\n\n"
        "`run.json` beside this file holds the whole record: environment, hashes of the data, every logged loss."
    )
    return "\n\n".join([*parts, _loading(recipe, ends), _results(record), making]) + "\n"


def _loading(recipe: Recipe, ends: AnswerEnds) -> str:
    method, first, note = recipe.adapter.type, "", ""
    if method in ADAPTERS:
        merging = "`model.merge_and_unload()` adds the update to the base weights, which then need no qpeft."
        if not issubclass(ADAPTERS[method][1], AbstractMatrixModel):
            where = "The circuit runs on an exact simulator"
            if recipe.device:
                layers = ", ".join(recipe.device.layers or ["all layers"])
                where = (
                    f"In training, circuits of {layers} ran on the quantum device `{recipe.device.name}`; what was "
                    "measured, and what loads here, runs on an exact simulator"
                )
            merging = (
                f"{where}; PEFT cannot merge the adapter, since its update depends on the input. `qpeft export` and "
                "`qpeft merge` replace the circuit by the nearest linear map and report what that loses."
            )
        # PEFT knows no types but its own before qpeft is imported.
        first = "import qpeft  # first: it makes the adapter type known to PEFT\n"
        note = f"Without `import qpeft`, PEFT stops with `KeyError: '{method.upper()}'`. {merging}\n\n"
    bits = recipe.model.quantization
    how = f', quantization="{bits}"' if bits else ""
    return (
        f"## Use\n\n{note}```python\n{first}from peft import PeftModel\nfrom qpeft.models import load_model, "
        "load_tokenizer\nfrom transformers import GenerationConfig\n\n"
        f'tokenizer = load_tokenizer("{recipe.model.name}")\n'
        f'model = PeftModel.from_pretrained(load_model("{recipe.model.name}"{how}), "path/to/this/folder")\n'
        'model.generation_config = GenerationConfig.from_pretrained("path/to/this/folder")\n```\n\n'
        "The last line makes answers end where training ended them: PEFT reads no `generation_config.json` by itself. "
        f"{ends_note(ends)}"
    ).rstrip()


def _results(record: Mapping[str, Any]) -> str:
    before, after = record.get("before"), record.get("after")
    if not after:
        return "## Results\n\nNo held-out data were given, so nothing was measured."
    start = f"{before['loss']:.4f}" if before else "not measured"
    rows = ["## Results", "", "| | before | after |", "| --- | --- | --- |"]
    rows.append(f"| held-out loss, nats per token ({after['tokens']:,} tokens) | {start} | {after['loss']:.4f} |")
    task = find_task(after["task"]) if after["task"] is not None else None
    titles = {**task.overall_metrics, **task.metrics} if task else {}
    for name, title in titles.items():
        figures = [(one or {}).get("metrics", {}).get(name) for one in (before, after)]
        cells = ["not measured" if figure is None else f"{figure:.1%}" for figure in figures]
        rows.append(f"| {title} ({after['answered']} answers) | {' | '.join(cells)} |")
    rows += ["", "![loss curve](loss.png)"]
    if (health := record.get("health")) is not None:
        rows += ["", "![health of the circuits](health.png)"]
        rows += ["", *(f"- {layer}: {problem}" for layer, problem in health["warnings"].items())]
    return "\n".join(rows)


NOT_PUSHED = ["checkpoints/**", "tensorboard/**", ".*"]
"""What of a run's folder stays here: what only a resumed run needs, and what belongs to this machine."""


def require_login(repository: str) -> None:
    """Raises: RecipeError if nobody is logged in to the Hub, or it cannot be asked: before a run, not after it."""
    from huggingface_hub import HfApi  # noqa: PLC0415  (takes a moment to import)

    try:
        HfApi().whoami()
    except Exception as error:  # of whichever HTTP client this version of the Hub's library has
        reason = " ".join(str(error).split())[:300]
        raise RecipeError(
            f"'output.push_to_hub' is {repository}, and the Hub does not know you: {reason} Log in (hf auth login), or "
            "leave the key out and push later (hf upload)."
        ) from error


def push_adapter(folder: Path, repository: str) -> str:
    """Put adapter, card, figures and record into a repository, a private one if it is new; returns its address.

    Raises: OutputError if that fails; the folder stays as it is.
    """
    from huggingface_hub import HfApi  # noqa: PLC0415  (takes a moment to import)

    api = HfApi()
    try:
        # Private, since the record tells names of files and text of samples: its owner decides who else reads them.
        address = api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, ignore_patterns=NOT_PUSHED)
    except Exception as error:  # as above
        reason = " ".join(str(error).split())[:300]
        raise OutputError(
            f"The run is finished and in {folder}, but was not pushed to {repository}: {reason} Push it again with: "
            f"hf upload {repository} {folder}"
        ) from error
    return str(address)

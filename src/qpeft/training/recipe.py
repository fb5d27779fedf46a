"""A training run from beginning to end, in the order in which it happens."""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from peft import PeftConfig, PeftModel
from rich.console import Console
from torch import Tensor
from transformers import PreTrainedTokenizerBase, set_seed

from qpeft.adapters.build import build_config
from qpeft.data import Encoded, PackedExamples
from qpeft.errors import OutputError
from qpeft.evaluation import Scores, score
from qpeft.models import device_name, load_tokenizer
from qpeft.runs import (
    environment,
    make_folder,
    read_record,
    require_empty_folder,
    write_atomically,
    write_record,
)
from qpeft.runs.files import disk_errors, used_alone
from qpeft.training.bill import Bill, training_bill
from qpeft.training.card import model_card
from qpeft.training.checkpoints import checkpoints
from qpeft.training.figure import save_loss_curve
from qpeft.training.packing import require_separate_examples
from qpeft.training.processes import (
    from_main,
    is_main_process,
    join_processes,
    number_of_processes,
    require_as_many_processes,
)
from qpeft.training.quality import expected_quality
from qpeft.training.quantum import DeviceSession, DeviceSteps, new_run_id
from qpeft.training.sections import Recipe
from qpeft.training.setup import adapted_model, make_trainer
from qpeft.training.sharding import whole_weights
from qpeft.training.splits import Split, data_hashes, load_splits, split_record


@dataclass(frozen=True)
class TrainedRun:
    """What a run ends with. `record` is what run.json holds."""

    record: dict[str, Any]
    model: PeftModel
    tokenizer: PreTrainedTokenizerBase


def train(
    recipe: Recipe,
    *,
    resume: bool = False,
    console: Console | None = None,
    confirm: Callable[[Bill], None] = lambda _: None,
) -> TrainedRun:
    """Train an adapter as the recipe says, and leave it in the output folder with card, loss curve and record.

    Args:
        recipe: the run.
        resume: continue the run in the output folder from its last checkpoint, or from the start if it has none yet.
        console: where progress goes; None for nowhere.
        confirm: told what a quantum device would be sent, before it is sent anything; may raise.

    Returns:
        The record, and the model with its adapter.

    Raises:
        QpeftError: of the kind that fits; nothing has then been overwritten, and checkpoints stay.
    """
    # Processes that train together have one folder, and the first of them writes.
    join_processes()
    alone = used_alone(Path(recipe.output.folder)) if is_main_process() else nullcontext()
    heard = console if is_main_process() else None
    with alone:
        return _train(recipe, resume, heard or Console(quiet=True), confirm)


def _train(recipe: Recipe, resume: bool, console: Console, confirm: Callable[[Bill], None]) -> TrainedRun:
    folder = Path(recipe.output.folder)
    config = build_config(recipe.adapter.type, recipe.adapter.options)
    started = from_main(lambda: _find_started(folder, recipe, resume=resume))
    session = DeviceSession(recipe.device, seed=recipe.seed, journal=_journal_of(started)) if recipe.device else None

    tokenizer = load_tokenizer(
        recipe.model.name,
        chat_template=recipe.model.chat_template,
        trust_remote_code=recipe.model.trust_remote_code,
    )
    training, held_out = load_splits(recipe.data, tokenizer, seed=recipe.seed)
    splits = split_record(training, held_out)
    if started is not None and started.get("splits", splits) != splits:
        raise OutputError(
            f"The examples changed since the run in {folder} was started, though no data file did: a data set of the "
            "Hub is another one, or this qpeft reads files otherwise. Start a new run in another --output.folder."
        )
    _show_data(training, held_out, console)

    set_seed(recipe.seed)
    model = adapted_model(recipe, config)
    size = _size(model)
    console.print(
        f"{recipe.adapter.type} on {recipe.model.name}: {size['trainable_parameters']:,} trainable parameters in "
        f"{size['layers']} layers, on {device_name(model.device)}"
    )
    if (processes := number_of_processes()) > 1:
        console.print(f"{processes} processes, each with batches of {recipe.training.batch_size} of its own")
    rows = _rows(recipe, model, training, console)
    if session is not None:
        session.check(model)
        bill = training_bill(recipe, session.device.capabilities(), model, rows)
        console.print(bill.table())
        for layer, quality in expected_quality(recipe, session.device, model, training.encoded).items():
            console.print(f"expected of {layer}: {str(quality).splitlines()[0]}")
        confirm(bill)
    if started is None:
        from_main(lambda: make_folder(folder))
        before = recipe.evaluation.before
        started = {
            "state": "started",
            "recipe": recipe.model_dump(mode="json"),
            "processes": processes,
            "environment": environment() | {"device": device_name(model.device)},
            "data": data_hashes(recipe.data),
            "splits": splits,
            "adapter": size,
            "device": {"run": new_run_id(folder), "journal": str(session.journal_path)} if session else None,
            "before": _measure(recipe, model, tokenizer, held_out, console, "before") if before else None,
        }
        if is_main_process():
            text = yaml.safe_dump(started["recipe"], sort_keys=False, allow_unicode=True)
            write_record(folder, started)
            write_atomically(folder / "recipe.yaml", text)

    device_steps = DeviceSteps(session, model, started["device"]["run"]) if session else None
    trainer, progress = make_trainer(recipe, model, tokenizer, rows, held_out, console, device_steps)
    saved = from_main(lambda: checkpoints(folder / "checkpoints"))
    if saved:
        console.print(f"continuing from {saved[-1].name}")
    trainer.train_from(saved[-1] if saved else None)
    if device_steps is not None:
        console.print(f"sent to the device in all: {device_steps.spent()}")

    record = started | {
        "state": "finished",
        "device": started["device"] | vars(device_steps.spent()) if device_steps else None,
        "after": _measure(recipe, model, tokenizer, held_out, console, "after"),
        "steps": trainer.state.global_step,
        "history": trainer.state.log_history,
        "seconds_per_step": statistics.median(progress.step_seconds) if progress.step_seconds else None,
    }
    weights = whole_weights(model)
    if is_main_process():
        _save(recipe, model, weights, record, folder)
    console.print(f"saved to {folder}")
    return TrainedRun(record, model, tokenizer)


def _show_data(training: Split, held_out: Split | None, console: Console) -> None:
    for name, split in (("training", training), ("held-out", held_out)):
        if split is not None:
            console.print(f"{name} data: {split} ({split.source})")
            for note, examples in split.summary.notes.items():
                console.print(f"  note on {examples:,} examples: {note}")


def _rows(recipe: Recipe, model: PeftModel, training: Split, console: Console) -> Sequence[Encoded]:
    """What a batch is made of: examples, or rows of several."""
    if not recipe.training.packing:
        return training.encoded
    require_separate_examples(model)
    rows = PackedExamples(training.encoded, recipe.data.max_length)
    console.print(f"packed into {len(rows):,} rows of {recipe.data.max_length} tokens, {rows.filled:.1%} of them used")
    return rows


def _size(model: PeftModel) -> dict[str, int]:
    return {
        "trainable_parameters": sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
        "layers": len(model.targeted_module_names),
    }


def _find_started(folder: Path, recipe: Recipe, *, resume: bool) -> dict[str, Any] | None:
    """The record of the run to continue; None for a new one. Raises: OutputError if the folder is in the way."""
    started = _continue_folder(folder, recipe) if resume else None
    if started is None:
        require_empty_folder(folder)
    return started


def _continue_folder(folder: Path, recipe: Recipe) -> dict[str, Any] | None:
    """The record of the interrupted run; None if it had not begun. Raises: OutputError for another run's folder."""
    if not folder.exists() or not any(folder.iterdir()):
        return None
    record = read_record(folder)
    if record["state"] == "finished":
        raise OutputError(f"The run in {folder} is finished; there is nothing to continue.")
    require_as_many_processes(folder, record)
    wanted, stored = _flat(recipe.model_dump(mode="json")), _flat(record["recipe"])
    differing = [
        name
        for name in sorted(wanted.keys() | stored.keys())
        if wanted.get(name) != stored.get(name) and name not in MAY_DIFFER and not name.startswith("output.")
    ]
    if differing:
        raise OutputError(
            f"The run in {folder} was started with other values of {', '.join(differing)}. Continue it with the "
            "recipe it was started with (recipe.yaml in that folder), or choose another --output.folder."
        )
    if record["data"] != (found := data_hashes(recipe.data)):
        changed = [name for name, value in found.items() if record["data"].get(name) != value]
        raise OutputError(f"The data changed since the run in {folder} was started: {', '.join(changed)}.")
    return record


def _journal_of(started: dict[str, Any] | None) -> Path | None:
    """Where the run that is continued wrote down what it paid for; None for a new run."""
    device = (started or {}).get("device")
    return Path(device["journal"]) if device else None


MAY_DIFFER = {"device.max_circuits", "device.max_shots", "device.max_seconds"}
"""Limits that a run may have reached, and goes on with higher ones."""


def _flat(recipe: dict[str, Any]) -> dict[str, Any]:
    """Values by section.key."""
    return {
        f"{section}.{key}" if isinstance(values, dict) else section: value
        for section, values in recipe.items()
        for key, value in (values if isinstance(values, dict) else {section: values}).items()
    }


def _measure(
    recipe: Recipe,
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    held_out: Split | None,
    console: Console,
    when: str,
) -> dict[str, Any] | None:
    if held_out is None:
        return None
    options = recipe.evaluation
    with console.status(f"measuring {when} training"):
        scores = score(
            model,
            tokenizer,
            held_out.examples,
            held_out.encoded,
            exact_match=options.exact_match,
            max_new_tokens=options.max_new_tokens,
            items=options.items,
        )
    console.print(f"{when}: {describe(scores)}")
    return scores.to_dict() | {"samples": [vars(answer) for answer in scores.answers[:SAMPLES]]}


SAMPLES = 5
"""Generated answers kept in the record."""


def describe(scores: Scores) -> str:
    """Scores in one line."""
    matched = f", exact match {scores.exact_match:.1%} of {len(scores.answers)}" if scores.answers else ""
    return f"held-out loss {scores.loss:.4f} over {scores.tokens:,} tokens{matched}"


def _save(recipe: Recipe, model: PeftModel, weights: dict[str, Tensor], record: dict[str, Any], folder: Path) -> None:
    """Adapter, card and curve; the record last, since it says that the run is finished."""
    with disk_errors(folder):
        temporary = folder / ".adapter"
        shutil.rmtree(temporary, ignore_errors=True)
        model.save_pretrained(str(temporary), state_dict=weights)
        _settle_config(temporary / "adapter_config.json", model.active_peft_config, recipe.model.name)
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            (temporary / name).replace(folder / name)
        shutil.rmtree(temporary)
    save_loss_curve(record["history"], folder / "loss.png", title=f"{recipe.adapter.type} on {recipe.model.name}")
    write_atomically(folder / "README.md", model_card(recipe, record))
    write_record(folder, record)


def _settle_config(path: Path, config: PeftConfig, base_model: str) -> None:
    """Make adapter_config.json the same on every machine and in every process.

    PEFT stores the folder that the base model was loaded from, and sets in the order in which they happen to lie.
    """
    values = json.loads(path.read_text(encoding="utf-8")) | {"base_model_name_or_path": base_model}
    values |= {name: sorted(value) for name, value in values.items() if isinstance(getattr(config, name, None), set)}
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")

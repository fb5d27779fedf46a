"""A training run from beginning to end, in the order in which it happens."""

from __future__ import annotations

import json
import shutil
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from peft import PeftConfig, PeftModel
from rich.console import Console
from transformers import PreTrainedTokenizerBase, PrinterCallback, ProgressCallback, set_seed
from trl import SFTConfig

from qpeft.adapters.build import add_adapter, build_config, default_learning_rate
from qpeft.data import summarize, to_dataset
from qpeft.errors import OutputError
from qpeft.evaluation import Scores, score
from qpeft.models import default_device, device_name, load_model, load_tokenizer
from qpeft.runs import (
    environment,
    hash_file,
    make_folder,
    read_record,
    require_empty_folder,
    write_atomically,
    write_record,
)
from qpeft.runs.files import disk_errors
from qpeft.training.card import model_card
from qpeft.training.checkpoints import checkpoints
from qpeft.training.config import Recipe
from qpeft.training.figure import save_loss_curve
from qpeft.training.progress import ProgressReport
from qpeft.training.splits import Split, load_splits
from qpeft.training.trainer import CheckpointingTrainer


@dataclass(frozen=True)
class TrainedRun:
    """What a run ends with. `record` is what run.json holds."""

    record: dict[str, Any]
    model: PeftModel
    tokenizer: PreTrainedTokenizerBase


def train(recipe: Recipe, *, resume: bool = False, console: Console | None = None) -> TrainedRun:
    """Train an adapter as the recipe says, and leave it in the output folder with card, loss curve and record.

    Args:
        recipe: the run.
        resume: continue the run in the output folder from its last checkpoint, or from the start if it has none yet.
        console: where progress goes; None for nowhere.

    Returns:
        The record, and the model with its adapter.

    Raises:
        QpeftError: of the kind that fits; nothing has then been overwritten, and checkpoints stay.
    """
    console = console or Console(quiet=True)
    folder = Path(recipe.output.folder)
    config = build_config(recipe.adapter.type, recipe.adapter.options)
    started = _continue_folder(folder, recipe) if resume else None
    if started is None:
        require_empty_folder(folder)

    tokenizer = load_tokenizer(
        recipe.model.name,
        chat_template=recipe.model.chat_template,
        trust_remote_code=recipe.model.trust_remote_code,
    )
    training, held_out = load_splits(recipe.data, tokenizer)
    _show_data(training, held_out, console)

    set_seed(recipe.seed)
    model = _adapted_model(recipe, config)
    size = _size(model)
    console.print(
        f"{recipe.adapter.type} on {recipe.model.name}: {size['trainable_parameters']:,} trainable parameters in "
        f"{size['layers']} layers, on {device_name(model.device)}"
    )
    if started is None:
        make_folder(folder)
        before = recipe.evaluation.before
        started = {
            "state": "started",
            "recipe": recipe.model_dump(mode="json"),
            "environment": environment() | {"device": device_name(model.device)},
            "data": _hashes(recipe),
            "adapter": size,
            "before": _measure(recipe, model, tokenizer, held_out, console, "before") if before else None,
        }
        write_record(folder, started)
        write_atomically(folder / "recipe.yaml", yaml.safe_dump(started["recipe"], sort_keys=False, allow_unicode=True))

    trainer, progress = _trainer(recipe, model, tokenizer, training, held_out, console)
    saved = checkpoints(folder / "checkpoints")
    if saved:
        console.print(f"continuing from {saved[-1].name}")
    trainer.train_from(saved[-1] if saved else None)

    record = started | {
        "state": "finished",
        "after": _measure(recipe, model, tokenizer, held_out, console, "after"),
        "steps": trainer.state.global_step,
        "history": trainer.state.log_history,
        "seconds_per_step": statistics.median(progress.step_seconds) if progress.step_seconds else None,
    }
    _save(recipe, model, record, folder)
    console.print(f"saved to {folder}")
    return TrainedRun(record, model, tokenizer)


def _show_data(training: Split, held_out: Split | None, console: Console) -> None:
    for name, split in (("training", training), ("held-out", held_out)):
        if split is not None:
            summary = summarize(split.encoded)
            console.print(f"{name} data: {summary}")
            for note, examples in summary.notes.items():
                console.print(f"  note on {examples:,} examples: {note}")


def _size(model: PeftModel) -> dict[str, int]:
    return {
        "trainable_parameters": sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
        "layers": len(model.targeted_module_names),
    }


def _continue_folder(folder: Path, recipe: Recipe) -> dict[str, Any] | None:
    """The record of the interrupted run; None if it had not begun. Raises: OutputError for another run's folder."""
    if not folder.exists() or not any(folder.iterdir()):
        return None
    record = read_record(folder)
    if record["state"] == "finished":
        raise OutputError(f"The run in {folder} is finished; there is nothing to continue.")
    wanted = recipe.model_dump(mode="json")
    differing = [
        f"{section}.{key}" if isinstance(values, dict) else section
        for section, values in wanted.items()
        if section != "output"
        for key in (values if isinstance(values, dict) else [section])
        if (values[key] if isinstance(values, dict) else values) != _stored(record["recipe"], section, key)
    ]
    if differing:
        raise OutputError(
            f"The run in {folder} was started with other values of {', '.join(differing)}. Continue it with the "
            "recipe it was started with (recipe.yaml in that folder), or choose another --output.folder."
        )
    if record["data"] != (found := _hashes(recipe)):
        changed = [name for name, value in found.items() if record["data"].get(name) != value]
        raise OutputError(f"The data changed since the run in {folder} was started: {', '.join(changed)}.")
    return record


def _stored(recipe: dict[str, Any], section: str, key: str) -> Any:
    values = recipe.get(section)
    return values.get(key) if isinstance(values, dict) else values


def _adapted_model(recipe: Recipe, config: PeftConfig) -> PeftModel:
    model = load_model(recipe.model.name, dtype=recipe.model.dtype, trust_remote_code=recipe.model.trust_remote_code)
    return add_adapter(model.to(default_device()), config)


def _trainer(
    recipe: Recipe,
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    training: Split,
    held_out: Split | None,
    console: Console,
) -> tuple[CheckpointingTrainer, ProgressReport]:
    options = recipe.training
    folder = Path(recipe.output.folder) / "checkpoints"
    learning_rate = options.learning_rate or default_learning_rate(recipe.adapter.type)
    progress = ProgressReport(console)
    batches = -(-len(training.encoded) // options.batch_size)
    per_epoch = -(-batches // options.gradient_accumulation)
    steps = options.steps or max(1, round(options.epochs * per_epoch))
    arguments = SFTConfig(
        output_dir=str(folder),
        seed=recipe.seed,
        max_steps=steps,
        per_device_train_batch_size=options.batch_size,
        gradient_accumulation_steps=options.gradient_accumulation,
        learning_rate=learning_rate,
        lr_scheduler_type=options.schedule if options.schedule != "constant" else "constant_with_warmup",
        warmup_steps=round(options.warmup * steps),
        weight_decay=options.weight_decay,
        max_grad_norm=options.max_grad_norm,
        gradient_checkpointing=options.gradient_checkpointing or None,
        bf16=False,
        logging_steps=options.log_every,
        logging_first_step=True,
        eval_strategy="steps" if held_out and options.eval_every else "no",
        eval_steps=options.eval_every,
        save_strategy="steps" if options.checkpoint_every else "no",
        save_steps=options.checkpoint_every or 500,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
    )
    trainer = CheckpointingTrainer(
        model=model,
        args=arguments,
        train_dataset=to_dataset(training.encoded),
        eval_dataset=to_dataset(held_out.encoded) if held_out else None,
        processing_class=tokenizer,
        callbacks=[progress],
        held_out=held_out.encoded if held_out else (),
        keep_checkpoints=options.keep_checkpoints,
        lengths=[len(one.input_ids) for one in training.encoded] if options.group_by_length else None,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    return trainer, progress


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


def _save(recipe: Recipe, model: PeftModel, record: dict[str, Any], folder: Path) -> None:
    """Adapter, card and curve; the record last, since it says that the run is finished."""
    with disk_errors(folder):
        temporary = folder / ".adapter"
        shutil.rmtree(temporary, ignore_errors=True)
        model.save_pretrained(str(temporary))
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


def _hashes(recipe: Recipe) -> dict[str, str]:
    """SHA-256 of the data files; a Hub name stands for itself."""
    sources = {"train": recipe.data.train, "eval": recipe.data.eval}
    return {
        name: hash_file(Path(source)) if Path(source).is_file() else source
        for name, source in sources.items()
        if source is not None
    }

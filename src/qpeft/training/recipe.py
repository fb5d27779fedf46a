"""A training run from beginning to end, in the order in which it happens."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from peft import PeftModel
from rich.console import Console
from transformers import PreTrainedTokenizerBase, set_seed

from qpeft.adapters.build import build_config, check_targets
from qpeft.data import AnswerEnds, Encoded, PackedExamples, answer_ends, settle_ends
from qpeft.errors import MemoryLimitError, OutputError, RecipeError
from qpeft.evaluation import find_task
from qpeft.models import Precision, choose_precision, default_device, device_name, load_skeleton, load_tokenizer
from qpeft.runs import environment, make_folder, require_empty_folder, write_atomically, write_record
from qpeft.runs.files import used_alone
from qpeft.training.batches import require_separate_examples
from qpeft.training.checkpoints import checkpoints, damaged_checkpoints
from qpeft.training.chip_forecast import expected_quality
from qpeft.training.cost_estimate import CostEstimate, training_cost
from qpeft.training.measuring import measure
from qpeft.training.memory import peak_memory, training_memory
from qpeft.training.processes import (
    busy_cores,
    from_main,
    is_main_process,
    join_processes,
    number_of_processes,
    whole_weights,
)
from qpeft.training.progress import ProgressReport, report_names
from qpeft.training.quantum import DeviceSession, DeviceSteps, new_run_id
from qpeft.training.readable import require_readable
from qpeft.training.resume import continue_folder
from qpeft.training.saving import save_run
from qpeft.training.sections import Recipe
from qpeft.training.setup import adapted_model, fit_frozen_factors, learning_rate, make_trainer
from qpeft.training.splits import Split, data_hashes, load_splits, split_record
from qpeft.training.trainer import CheckpointingTrainer
from qpeft.training.trial import try_out


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
    confirm: Callable[[CostEstimate], None] = lambda _: None,
) -> TrainedRun:
    """Train an adapter as the recipe says, and leave it in the output folder with card, figures and record.

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
    join_processes()
    # Processes that train together have one folder, and the first of them writes.
    alone = used_alone(Path(recipe.output.folder)) if is_main_process() else nullcontext()
    with alone:
        shown = console if console is not None and is_main_process() else Console(quiet=True)
        return _train(recipe, resume, shown, confirm)


def _train(recipe: Recipe, resume: bool, console: Console, confirm: Callable[[CostEstimate], None]) -> TrainedRun:
    folder = Path(recipe.output.folder)
    config = build_config(recipe.adapter.type, recipe.adapter.options)
    # Both raise, if they do, before anything takes time.
    if not report_names(recipe.training) and recipe.training.report_to == "auto":
        console.print("no curves for TensorBoard, which is not installed: pip install tensorboard")
    if recipe.evaluation.task_name is not None:
        find_task(recipe.evaluation.task_name).require_packages()
    started = from_main(lambda: _find_started(folder, recipe, resume=resume))
    options = recipe.model
    skeleton = load_skeleton(options.name, trust_remote_code=options.trust_remote_code)
    check_targets(skeleton, config)
    session = DeviceSession(recipe.device, seed=recipe.seed, journal=_journal_of(started)) if recipe.device else None

    tokenizer, training, held_out = _load_data(recipe, console)
    for note in require_readable(recipe, skeleton, tokenizer, training, held_out):
        console.print(f"note: {note}")
    splits = split_record(training, held_out)
    if started is not None and started.get("splits", splits) != splits:
        raise OutputError(
            f"The examples changed since the run in {folder} was started, though no data file did: a data set of the "
            "Hub is another one, or this qpeft reads files otherwise. Start a new run in another --output.folder."
        )
    precision = _precision(recipe, started, console)
    set_seed(recipe.seed)
    model = adapted_model(recipe, config, dtype=precision.dtype)
    _show_model(recipe, model, console)
    ends = _settle_ends(model, tokenizer, console)
    fit_frozen_factors(model, training.encoded, console)
    coefficient = recipe.training.router_aux_loss_coef
    # The other processes have the same model and data, but a launcher may have left their weights to the first.
    with training_memory(recipe):
        from_main(lambda: try_out(model, training.encoded, console, router_aux_loss_coef=coefficient))
    rows = _rows(recipe, model, training, console)
    if session is not None:
        _agree(recipe, session, model, training, rows, console, confirm)
    if started is None:
        started = _begin(recipe, model, precision, session, splits)

    device_steps = DeviceSteps(session, model, started["device"]["run"]) if session else None
    trainer, progress = make_trainer(recipe, model, tokenizer, rows, held_out, console, device_steps)
    if "before" not in started:
        _try_memory(recipe, trainer, rows)
        before = recipe.evaluation.before
        started["before"] = measure(recipe, model, tokenizer, held_out, console, "before") if before else None
        if is_main_process():
            write_record(folder, started)
    with progress.bars:
        _run_steps(recipe, trainer, console)
    if device_steps is not None:
        for name, error in device_steps.finish().items():
            console.print(f"{name}: final values measured, with standard errors of at most {error:.4f}")
        console.print(f"sent to the device in all: {device_steps.spent()}")
    after = measure(recipe, model, tokenizer, held_out, console, "after")
    record = started | {"state": "finished"} | _results(trainer, progress, device_steps, started) | {"after": after}
    weights = whole_weights(model)
    if is_main_process():
        save_run(recipe, model, ends, weights, record, folder)
    console.print(f"saved to {folder}")
    return TrainedRun(record, model, tokenizer)


def _find_started(folder: Path, recipe: Recipe, *, resume: bool) -> dict[str, Any] | None:
    """The record of the run to continue; None for a new one. Raises: OutputError if the folder is in the way."""
    started = continue_folder(folder, recipe) if resume else None
    if started is None:
        require_empty_folder(folder)
    return started


def _load_data(recipe: Recipe, console: Console) -> tuple[PreTrainedTokenizerBase, Split, Split | None]:
    """Tokenizer, training examples, held-out examples. Raises: DataError, ModelError; RecipeError if none are held out
    and something is to be decided by them.
    """
    options = recipe.model
    tokenizer = load_tokenizer(
        options.name, chat_template=options.chat_template, trust_remote_code=options.trust_remote_code
    )
    training, held_out = load_splits(recipe.data, tokenizer, seed=recipe.seed)
    if held_out is None and (recipe.training.keep_best or recipe.training.early_stopping):
        raise RecipeError(
            "'training.keep_best' and 'training.early_stopping' need held-out examples to measure, and the recipe has "
            "none: set data.eval or data.hold_out."
        )
    for name, split in (("training", training), ("held-out", held_out)):
        if split is not None:
            console.print(f"{name} data: {split} ({split.source})")
            for note, examples in split.summary.notes.items():
                console.print(f"  note on {examples:,} examples: {note}")
    return tokenizer, training, held_out


def _precision(recipe: Recipe, started: dict[str, Any] | None, console: Console) -> Precision:
    """What the run began with, wherever it goes on; or what this hardware is good at."""
    if started is not None:
        precision = Precision(**started["precision"])
    else:
        precision = choose_precision(recipe.model.dtype, default_device())
    in_bits = f"in {recipe.model.quantization}, computed with " if recipe.model.quantization else ""
    console.print(f"base weights {in_bits}in {precision}")
    return precision


def _show_model(recipe: Recipe, model: PeftModel, console: Console) -> None:
    size = _size(model)
    console.print(
        f"{recipe.adapter.type} on {recipe.model.name}: {size['trainable_parameters']:,} trainable parameters in "
        f"{size['layers']} layers, on {device_name(model.device)}"
    )
    console.print(f"learning rate {learning_rate(recipe)}")
    if (busy := busy_cores(model.device)) is not None:
        console.print(busy)
    if (processes := number_of_processes()) > 1:
        console.print(f"{processes} processes, each with batches of {recipe.training.batch_size} of its own")


def _settle_ends(model: PeftModel, tokenizer: PreTrainedTokenizerBase, console: Console) -> AnswerEnds:
    """Make the model stop where training will teach it to end its answers."""
    ends = answer_ends(tokenizer, model.generation_config)
    settle_ends(model.generation_config, ends)
    if ends.news:
        console.print(f"{ends.news}; generation stops at all of them")
    return ends


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


def _agree(
    recipe: Recipe,
    session: DeviceSession,
    model: PeftModel,
    training: Split,
    rows: Sequence[Encoded],
    console: Console,
    confirm: Callable[[CostEstimate], None],
) -> None:
    """Show what a quantum device would be sent and what it would make of it; raises unless that is agreed to."""
    session.check(model)
    bill = training_cost(recipe, session.device.capabilities(), model, rows)
    console.print(bill.table())
    for layer, quality in expected_quality(recipe, session.device, model, training.encoded).items():
        console.print(f"expected of {layer}: {str(quality).splitlines()[0]}")
    confirm(bill)


def _begin(
    recipe: Recipe,
    model: PeftModel,
    precision: Precision,
    session: DeviceSession | None,
    splits: dict[str, dict[str, str | int]],
) -> dict[str, Any]:
    """Make the folder, with the record of a run that has started."""
    folder = Path(recipe.output.folder)
    from_main(lambda: make_folder(folder))
    started = {
        "state": "started",
        "recipe": recipe.model_dump(mode="json"),
        "processes": number_of_processes(),
        "environment": environment() | {"device": device_name(model.device)},
        "data": data_hashes(recipe.data),
        "splits": splits,
        "adapter": _size(model),
        "precision": vars(precision),
        "learning_rate": vars(learning_rate(recipe)),
        "device": {"run": new_run_id(folder), "journal": str(session.journal_path)} if session else None,
    }
    if is_main_process():
        write_record(folder, started)
        text = yaml.safe_dump(started["recipe"], sort_keys=False, allow_unicode=True)
        write_atomically(folder / "recipe.yaml", text)
    return started


def _journal_of(started: dict[str, Any] | None) -> Path | None:
    """Where the run that is continued wrote down what it paid for; None for a new run."""
    device = (started or {}).get("device")
    return Path(device["journal"]) if device else None


def _try_memory(recipe: Recipe, trainer: CheckpointingTrainer, rows: Sequence[Encoded]) -> None:
    """Raises: MemoryLimitError; the run has then left nothing, so that another recipe can have its folder."""
    if not recipe.training.try_memory:
        return
    try:
        trainer.try_memory(recipe, rows)
    except MemoryLimitError:
        if is_main_process():
            shutil.rmtree(recipe.output.folder)
        raise


def _run_steps(recipe: Recipe, trainer: CheckpointingTrainer, console: Console) -> None:
    """All steps that are left, or as many as early stopping allows; the model ends with the adapter to be kept."""
    folder = Path(trainer.args.output_dir)
    for name, problem in damaged_checkpoints(folder).items():
        console.print(f"warning: {name} is left out, since {problem}")
    saved = from_main(lambda: checkpoints(folder))
    if saved:
        console.print(f"continuing from {saved[-1].name}")
    with training_memory(recipe):
        trainer.train_from(saved[-1] if saved else None)
    watch, step = trainer.watch, trainer.state.global_step
    if watch.has_enough:
        console.print(
            f"stopped early at step {step} of {trainer.args.max_steps}: the held-out loss has not fallen in "
            f"{recipe.training.early_stopping} evaluations"
        )
    if watch.keep_best and watch.step is not None:
        console.print(f"kept the adapter of step {watch.step}, whose held-out loss was the lowest: {watch.loss:.4f}")


def _results(
    trainer: CheckpointingTrainer,
    progress: ProgressReport,
    device_steps: DeviceSteps | None,
    started: dict[str, Any],
) -> dict[str, Any]:
    watch, health = trainer.watch, trainer.health
    best = {"step": watch.step, "loss": watch.loss, "kept": watch.keep_best}
    return {
        "device": started["device"] | vars(device_steps.spent()) if device_steps else None,
        "steps": trainer.state.global_step,
        "order": trainer.order.digest,
        "stopped_early": watch.has_enough,
        "best": best if watch.step is not None else None,
        # Without transformers' summary, which counts what this process did, not the run.
        "history": [entry for entry in trainer.state.log_history if "train_runtime" not in entry],
        "health": {"layers": health.history, "warnings": health.warnings} if health.history else None,
        "seconds_per_step": statistics.median(progress.step_seconds) if progress.step_seconds else None,
        "peak_memory": peak_memory(trainer.model.device),
    }

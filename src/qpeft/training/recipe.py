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
from peft import PeftConfig, PeftModel
from rich.console import Console
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from qpeft.adapters.build import build_config, check_targets
from qpeft.data import AnswerEnds, Encoded, PackedExamples, answer_ends, settle_ends
from qpeft.errors import MemoryLimitError, OutputError, RecipeError
from qpeft.evaluation import find_task, score
from qpeft.models import Precision, choose_precision, default_device, device_name, load_skeleton, load_tokenizer
from qpeft.runs import environment, make_folder, require_empty_folder, write_atomically, write_record
from qpeft.runs.bars import Bars
from qpeft.runs.files import used_alone
from qpeft.training.checkpoints import checkpoints, damaged_checkpoints
from qpeft.training.chip_forecast import expected_quality
from qpeft.training.cost_estimate import CostEstimate, training_cost
from qpeft.training.dry_run import require_separate_examples, try_out
from qpeft.training.memory import evaluation_memory, peak_memory, training_memory
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
from qpeft.training.saving import push_adapter, require_login, save_run
from qpeft.training.sections import Recipe
from qpeft.training.setup import (
    adapted_model,
    fit_frozen_factors,
    learning_rate,
    make_trainer,
    require_optimizer,
    start_at_gradient,
)
from qpeft.training.splits import Split, data_hashes, load_splits, split_record
from qpeft.training.trainer import RunMixin

SAMPLES = 5
"""Generated answers kept in the record."""


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
    config, skeleton, started, session = _open(recipe, folder, resume, console)
    tokenizer, training, held_out = _load_data(recipe, console)
    for note in require_readable(recipe, skeleton, tokenizer, training, held_out):
        console.print(f"note: {note}")
    splits = split_record(training, held_out)
    if started is not None and started.get("splits", splits) != splits:
        raise OutputError(
            f"The examples changed since the run in {folder} was started, though no data file did: a data set of the "
            "Hub is another one, or this qpeft reads files otherwise. Start a new run in another --output.folder."
        )
    # As the run began, wherever it goes on; or what this hardware is good at.
    chosen = choose_precision(recipe.model.dtype, default_device())
    precision = Precision(**started["precision"]) if started else chosen
    model, ends = _make_model(recipe, config, precision, tokenizer, training, console)
    rows: Sequence[Encoded] = training.encoded
    if recipe.training.packing:
        rows = _pack(recipe, model, training, console)
    if session is not None:
        session.check(model)
        estimate = training_cost(recipe, session.device.capabilities(), model, rows)
        console.print(estimate.table())
        for layer, quality in expected_quality(recipe, session.device, model, training.encoded).items():
            console.print(f"expected of {layer}: {str(quality).splitlines()[0]}")
        confirm(estimate)
    # Nothing is written to the folder before this, so a refused run leaves none.
    if started is None:
        started = _begin(recipe, model, precision, session, splits)

    device_steps = DeviceSteps(session, model, started["device"]["run"]) if session else None
    trainer, progress = make_trainer(recipe, model, tokenizer, rows, training, held_out, console, device_steps)
    # A run that was killed while it measured measures again: the record has "before" only when it is known.
    if "before" not in started:
        _try_memory(recipe, trainer, rows)
        wanted = held_out if recipe.evaluation.before else None
        started["before"] = _measure(recipe, model, tokenizer, wanted, console, "before")
        if is_main_process():
            write_record(folder, started)
    with progress.bars:
        _run_steps(recipe, trainer, console)
    if device_steps is not None:
        for name, error in device_steps.finish().items():
            console.print(f"{name}: final values measured, with standard errors of at most {error:.4f}")
        console.print(f"sent to the device in all: {device_steps.spent()}")
    after = _measure(recipe, model, tokenizer, held_out, console, "after")
    record = started | {"state": "finished"} | _results(trainer, progress, device_steps, started) | {"after": after}
    # All processes take part in putting sharded weights together.
    weights = whole_weights(model)
    if is_main_process():
        save_run(recipe, model, ends, weights, record, folder)
        if recipe.output.push_to_hub is not None:
            console.print(f"pushed to {push_adapter(folder, recipe.output.push_to_hub)}")
    console.print(f"saved to {folder}")
    return TrainedRun(record, model, tokenizer)


def rehearse(recipe: Recipe, *, console: Console) -> None:
    """Do all that comes before the first step, and leave nothing: no folder is made and nothing is sent to a device.

    Args:
        recipe: the run.
        console: told what `train` would tell.

    Raises: QpeftError of the kind that fits, where `train` would.
    """
    config, skeleton, _, session = _open(recipe, Path(recipe.output.folder), False, console)
    tokenizer, training, held_out = _load_data(recipe, console)
    for note in require_readable(recipe, skeleton, tokenizer, training, held_out):
        console.print(f"note: {note}")
    precision = choose_precision(recipe.model.dtype, default_device())
    model, _ = _make_model(recipe, config, precision, tokenizer, training, console)
    rows = _pack(recipe, model, training, console) if recipe.training.packing else training.encoded
    if session is not None:
        session.check(model)
        console.print(training_cost(recipe, session.device.capabilities(), model, rows).table())
    steps = recipe.training.num_steps(len(rows), num_processes=number_of_processes())
    console.print(f"a dry run: {steps:,} steps would follow; nothing was written")


def _open(
    recipe: Recipe, folder: Path, resume: bool, console: Console
) -> tuple[PeftConfig, PreTrainedModel, dict[str, Any] | None, DeviceSession | None]:
    """Return the adapter's config, the model without weights, the record to continue, and the quantum device.

    All of it raises, if it does, before anything takes time.
    """
    config = build_config(recipe.adapter.type, recipe.adapter.options)
    if not report_names(recipe.training) and recipe.training.report_to == "auto":
        console.print("no curves for TensorBoard, which is not installed: pip install tensorboard")
    require_optimizer(recipe.training)
    if (repository := recipe.output.push_to_hub) is not None:
        from_main(lambda: require_login(repository))
    if recipe.evaluation.task_name is not None:
        find_task(recipe.evaluation.task_name).require_packages()
    started = from_main(lambda: continue_folder(folder, recipe) if resume else None)
    if started is None:
        from_main(lambda: require_empty_folder(folder))
    skeleton = load_skeleton(recipe.model.name, trust_remote_code=recipe.model.trust_remote_code)
    check_targets(skeleton, config)
    if recipe.device is None:
        return config, skeleton, started, None
    # A run that is continued has its results, which were paid for, in the journal that it began with.
    journal = Path(started["device"]["journal"]) if started and started.get("device") else None
    return config, skeleton, started, DeviceSession(recipe.device, seed=recipe.seed, journal=journal)


def _load_data(recipe: Recipe, console: Console) -> tuple[PreTrainedTokenizerBase, Split, Split | None]:
    """Return tokenizer, training examples and held-out examples.

    Raises: DataError, ModelError; RecipeError if nothing is held out and something is to be decided by it.
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


def _make_model(
    recipe: Recipe,
    config: PeftConfig,
    precision: Precision,
    tokenizer: PreTrainedTokenizerBase,
    training: Split,
    console: Console,
) -> tuple[PeftModel, AnswerEnds]:
    """Return the base model with a fresh adapter that a short trial found sound, and what ends its answers."""
    in_bits = f"in {recipe.model.quantization}, computed with " if recipe.model.quantization else ""
    console.print(f"base weights {in_bits}in {precision}")
    set_seed(recipe.seed)
    model = adapted_model(recipe, config, dtype=precision.dtype)
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
    # The model is to stop where training will teach it to end its answers.
    ends = answer_ends(tokenizer, model.generation_config)
    settle_ends(model.generation_config, ends)
    if ends.news:
        console.print(f"{ends.news}; generation stops at all of them")
    fit_frozen_factors(model, training.encoded, console)
    start_at_gradient(
        model,
        training.encoded,
        console,
        batch_size=recipe.training.batch_size,
        pad_token_id=tokenizer.pad_token_id,
    )
    coefficient = recipe.training.router_aux_loss_coef
    # The other processes have the same model and data, but a launcher may have left their weights to the first.
    with training_memory(recipe):
        from_main(lambda: try_out(model, training.encoded, console, router_aux_loss_coef=coefficient))
    return model, ends


def _pack(recipe: Recipe, model: PeftModel, training: Split, console: Console) -> PackedExamples:
    require_separate_examples(model)
    rows = PackedExamples(training.encoded, recipe.data.max_length)
    console.print(f"packed into {len(rows):,} rows of {recipe.data.max_length} tokens, {rows.filled:.1%} of them used")
    return rows


def _size(model: PeftModel) -> dict[str, int]:
    return {
        "trainable_parameters": sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
        "layers": len(model.targeted_module_names),
    }


def _begin(
    recipe: Recipe,
    model: PeftModel,
    precision: Precision,
    session: DeviceSession | None,
    splits: dict[str, dict[str, str | int]],
) -> dict[str, Any]:
    """Make the folder, and return the record of a run that has started, which is in it."""
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


def _try_memory(recipe: Recipe, trainer: RunMixin, rows: Sequence[Encoded]) -> None:
    if not recipe.training.try_memory:
        return
    try:
        trainer.try_memory(recipe, rows)
    except MemoryLimitError:
        # So that another recipe, with less of everything, can have the folder.
        if is_main_process():
            shutil.rmtree(recipe.output.folder)
        raise


def _measure(
    recipe: Recipe,
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    held_out: Split | None,
    console: Console,
    when: str,
) -> dict[str, Any] | None:
    """Return scores on held-out examples for the record, and print them; None without examples."""
    if held_out is None:
        return None
    options = recipe.evaluation
    with Bars(console) as bars, evaluation_memory(recipe):
        scores = score(
            model,
            tokenizer,
            held_out.examples,
            held_out.encoded,
            task=find_task(options.task_name) if options.task_name else None,
            max_new_tokens=options.max_new_tokens,
            items=options.items,
            on_progress=bars.of(when),
        )
    said = f"held-out loss {scores.loss:.4f} over {scores.tokens:,} tokens"
    if scores.task is not None:
        titles = {**scores.task.overall_metrics, **scores.task.metrics}
        figures = [f"{titles[name]} {value:.1%}" for name, value in scores.metrics.items()]
        cut = f", {scores.cut} of them cut off" if scores.cut else ""
        said = f"{', '.join([said, *figures])} of {len(scores.answers)} answers{cut}"
    console.print(f"{when}: {said}")
    return scores.to_dict() | {"samples": [vars(answer) for answer in scores.answers[:SAMPLES]]}


def _run_steps(recipe: Recipe, trainer: RunMixin, console: Console) -> None:
    """All steps that are left, or as many as early stopping allows; the model ends with the adapter to be kept."""
    folder = Path(trainer.args.output_dir)
    # Said aloud: a damaged one means that more of the run is lost than its user thinks.
    for name, problem in damaged_checkpoints(folder).items():
        console.print(f"warning: {name} is left out, since {problem}")
    # Processes that saw the folder at different moments might go on from different steps.
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
    trainer: RunMixin,
    progress: ProgressReport,
    device_steps: DeviceSteps | None,
    started: dict[str, Any],
) -> dict[str, Any]:
    watch, health = trainer.watch, trainer.health
    best = {"step": watch.step, "loss": watch.loss, "kept": watch.keep_best}
    return {
        "device": started["device"] | vars(device_steps.spent()) if device_steps else None,
        "steps": trainer.state.global_step,
        "order": trainer.batch_hash.digest,
        "stopped_early": watch.has_enough,
        "best": best if watch.step is not None else None,
        # Without transformers' summary, which counts what this process did, not the run.
        "history": [entry for entry in trainer.state.log_history if "train_runtime" not in entry],
        "health": {"layers": health.history, "warnings": health.warnings} if health.history else None,
        "seconds_per_step": statistics.median(progress.step_seconds) if progress.step_seconds else None,
        "peak_memory": peak_memory(trainer.model.device),
    }

"""The model and the trainer of a recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftConfig, PeftModel
from rich.console import Console
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    ProgressCallback,
    TrainingArguments,
)
from transformers.training_args import OptimizerNames

from qpeft.adapters.build import add_adapter
from qpeft.adapters.gradient_start import start_from_gradient, starts_from_gradient
from qpeft.adapters.learning_rates import LearningRate, default_learning_rate
from qpeft.adapters.qtha.fitting import fit_inputs, frozen_factors
from qpeft.data import Encoded, PackedExamples, lengths, pad_batch
from qpeft.errors import RecipeError
from qpeft.models import choose_precision, default_device, load_model, prepare_for_training
from qpeft.training.early_stopping import HeldOutWatch
from qpeft.training.health_log import HealthMonitor
from qpeft.training.memory import tokens_per_evaluation
from qpeft.training.processes import computes_on_cpu, number_of_processes
from qpeft.training.progress import ProgressReport, reporters
from qpeft.training.quantum import DeviceSteps
from qpeft.training.resume import fingerprint
from qpeft.training.sections import ModelSection, Recipe, TrainingSection
from qpeft.training.splits import Split

if TYPE_CHECKING:
    from qpeft.training.trainer import RunMixin

FITTED_EXAMPLES = 32
"""By which frozen factors are fitted: a thousand tokens and more."""
HEALTH_LOOKS = 50
"""At circuits in one run, unless the recipe says otherwise."""


def base_model(options: ModelSection, *, dtype: str | None = None) -> PreTrainedModel:
    """Return the base model of a recipe, on the device where it computes. Raises: ModelError.

    Args:
        options: of the recipe.
        dtype: of its weights; None takes what the options say here, on this hardware.
    """
    device = default_device()
    model = load_model(
        options.name,
        dtype=dtype or choose_precision(options.dtype, device).dtype,
        quantization=options.quantization,
        trust_remote_code=options.trust_remote_code,
    )
    # Some models come with a wish to add their router loss, which only a recipe can ask for.
    text = model.config.get_text_config()
    if getattr(text, "output_router_logits", False):
        text.output_router_logits = False
    return model if options.quantization else model.to(device)


def adapted_model(recipe: Recipe, config: PeftConfig, *, dtype: str | None = None) -> PeftModel:
    """Return the base model with a fresh adapter, where it will be trained.

    Args:
        recipe: of the run.
        config: of the adapter.
        dtype: as for `base_model`.
    """
    model = base_model(recipe.model, dtype=dtype)
    if recipe.model.quantization:
        model = prepare_for_training(model, gradient_checkpointing=recipe.training.gradient_checkpointing)
    return add_adapter(model, config)


def start_at_gradient(
    model: PeftModel, training: Sequence[Encoded], console: Console, *, batch_size: int, pad_token_id: int
) -> None:
    """Start the adapter from the gradient of the loss, if it is to, by examples from all over the training data.

    Args:
        model: with its fresh adapter.
        training: examples, of which as many batches as the adapter asks for are read, at equal distances.
        console: told what share of the gradient the factors hold.
        batch_size: examples of a batch.
        pad_token_id: of the tokenizer.
    """
    count = min(starts_from_gradient(model) * batch_size, len(training))
    if not count:
        return
    examples = [training[i * len(training) // count] for i in range(count)]
    batches = (
        pad_batch(examples[start : start + batch_size], pad_token_id=pad_token_id)
        for start in range(0, count, batch_size)
    )
    shares = start_from_gradient(model, ({key: part.to(model.device) for key, part in one.items()} for one in batches))
    console.print(
        f"started from the gradient of {count} training examples: the adapter's directions hold "
        f"{min(shares.values()):.0%} to {max(shares.values()):.0%} of its square in a layer"
    )


def fit_frozen_factors(model: PeftModel, training: Sequence[Encoded], console: Console) -> None:
    """Turn frozen factors, if the adapter has any, to inputs of examples from all over the training data.

    Args:
        model: with its adapter.
        training: examples, of which `FITTED_EXAMPLES` at equal distances are read.
        console: told what share of the inputs the factors hold.
    """
    # Those that start from the gradient have their directions already.
    if not frozen_factors(model) or starts_from_gradient(model):
        return
    count = min(FITTED_EXAMPLES, len(training))
    examples = [training[i * len(training) // count] for i in range(count)]
    shares = fit_inputs(model, ({"input_ids": torch.tensor([one.input_ids], device=model.device)} for one in examples))
    console.print(
        f"frozen factors fitted to the inputs of {len(examples)} training examples: their directions hold "
        f"{min(shares.values()):.0%} to {max(shares.values()):.0%} of the mean squared input of a layer"
    )


def learning_rate(recipe: Recipe) -> LearningRate:
    """Return the peak learning rate, and where it comes from."""
    if recipe.training.learning_rate is not None:
        return LearningRate(recipe.training.learning_rate, "as the recipe says")
    return default_learning_rate(recipe.adapter.type)


def require_optimizer(options: TrainingSection) -> None:
    """Raises: RecipeError if transformers knows no optimiser of that name; it names the nearest."""
    names = [one.value for one in OptimizerNames]
    if options.optimizer is None or options.optimizer in names:
        return
    near = get_close_matches(options.optimizer, names)
    hint = f"did you mean {' or '.join(near)}?" if near else f"it knows {', '.join(names)}."
    raise RecipeError(f"'training.optimizer': transformers has no {options.optimizer!r}; {hint}")


def make_trainer(
    recipe: Recipe,
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    training: Sequence[Encoded],
    examples: Split,
    held_out: Split | None,
    console: Console,
    device_steps: DeviceSteps | None,
) -> tuple[RunMixin, ProgressReport]:
    """Return the trainer of a recipe, and what reports its progress.

    Args:
        recipe: of the run.
        model: with its adapter.
        tokenizer: of the model.
        training: examples, or rows of several (`PackedExamples`).
        examples: the same with their texts, for methods that draw answers.
        held_out: examples that decide which adapter is the best, or None.
        console: for progress and warnings.
        device_steps: puts circuits on a quantum device; None for the simulator.
    """
    from qpeft.training.trainer import CheckpointingTrainer  # noqa: PLC0415  (takes seconds to import)

    options, folder = recipe.training, Path(recipe.output.folder)
    steps = recipe.num_steps(len(training), num_processes=number_of_processes())
    by_name = _arguments(recipe, steps, evaluates=held_out is not None)
    arguments = TrainingArguments(**by_name)
    # A long run that logs often would spend its time on looks at circuits.
    looks = options.health_every or max(int(arguments.logging_steps), arguments.max_steps // HEALTH_LOOKS)
    watch = HeldOutWatch(folder / "checkpoints", keep_best=options.keep_best, patience=options.early_stopping)
    health = HealthMonitor(model, every=looks, warmup=arguments.warmup_steps, console=console)
    progress = ProgressReport(console, model.device)
    collator = partial(pad_batch, pad_token_id=tokenizer.pad_token_id, packed=isinstance(training, PackedExamples))
    if options.gradient_checkpointing:
        model.enable_input_require_grads()  # reentrant checkpoints pass no gradient on without
    of_run: dict[str, Any] = {
        "callbacks": [progress, watch, health, *reporters(options, folder)],
        "on_progress": progress.bars,
        "watch": watch,
        "health": health,
        "run": fingerprint(recipe),
        "keep_checkpoints": options.keep_checkpoints,
        "device_steps": device_steps,
    }
    trainer: RunMixin
    if options.method == "grpo":
        from qpeft.training.grpo import make_grpo  # noqa: PLC0415  (needs TRL)

        trainer = make_grpo(recipe, model, tokenizer, examples, held_out, by_name, **of_run)
    else:
        trainer = CheckpointingTrainer(
            model=model,
            args=arguments,
            train_dataset=training,
            data_collator=collator,
            eval_dataset=held_out.encoded if held_out else None,
            processing_class=tokenizer,
            held_out=held_out.encoded if held_out else (),
            tokens_per_evaluation=tokens_per_evaluation(recipe, training),
            router_aux_loss_coef=options.router_aux_loss_coef,
            lengths=lengths(training) if options.group_by_length else None,
            **of_run,
        )
    # Ours reports in their place.
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    return trainer, progress


def _arguments(recipe: Recipe, steps: int, *, evaluates: bool) -> dict[str, Any]:
    """Return the arguments of transformers' trainers, by name."""
    options = recipe.training
    # transformers 5.20 calls it another name, and warns of the one that 5.0 knows.
    fields = {field.name for field in dataclasses.fields(TrainingArguments)}
    checkpointing = "activation_checkpointing" if "activation_checkpointing" in fields else "gradient_checkpointing"
    how = {"use_reentrant": False}
    # Said in any case, since TRL's trainers would checkpoint otherwise.
    asked: dict[str, Any] = {checkpointing: options.gradient_checkpointing}
    if options.gradient_checkpointing:
        asked[f"{checkpointing}_kwargs"] = how
    # Left out, it is transformers' own default, which depends on torch's version.
    chosen = {} if options.optimizer is None else {"optim": options.optimizer}
    arguments = dict(
        **asked,
        **chosen,
        output_dir=str(Path(recipe.output.folder) / "checkpoints"),
        run_name=Path(recipe.output.folder).name,
        seed=recipe.seed,
        # Counted by the recipe, so that schedule and cost estimate agree.
        max_steps=steps,
        per_device_train_batch_size=options.batch_size,
        gradient_accumulation_steps=options.gradient_accumulation,
        learning_rate=learning_rate(recipe).value,
        lr_scheduler_type=options.schedule if options.schedule != "constant" else "constant_with_warmup",
        warmup_steps=round(options.warmup * steps),
        weight_decay=options.weight_decay,
        max_grad_norm=options.max_grad_norm,
        # Without it, each process of a machine without GPUs would train alone.
        use_cpu=computes_on_cpu(),
        # Looking for unused weights goes through the whole graph in every step.
        ddp_find_unused_parameters=False,
        # A run that ends before the second line shows every step.
        logging_steps=options.log_every if steps > options.log_every else 1,
        logging_first_step=True,
        eval_strategy="steps" if evaluates and options.eval_every else "no",
        eval_steps=options.eval_every,
        save_strategy="steps" if options.checkpoint_every else "no",
        save_steps=options.checkpoint_every or 500,
        # Loggers are callbacks of ours (`reporters`).
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        # Examples are objects of ours, with no columns.
        remove_unused_columns=False,
    )
    plugin = TrainingArguments(**arguments).deepspeed_plugin if options.gradient_checkpointing else None
    if plugin is not None and plugin.zero_stage == 3:
        # ZeRO-3 has a layer's weights together in its own forward pass only, so the layer has to be run again whole.
        how["use_reentrant"] = True
    return arguments

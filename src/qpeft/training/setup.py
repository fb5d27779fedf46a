"""Model and trainer of a recipe, put together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftConfig, PeftModel
from rich.console import Console
from transformers import PreTrainedTokenizerBase, PrinterCallback, ProgressCallback
from trl import SFTConfig

from qpeft.adapters.build import add_adapter, default_learning_rate
from qpeft.data import Encoded, PackedExamples, lengths, to_dataset
from qpeft.models import default_device, load_model
from qpeft.training.packing import PackedCollator
from qpeft.training.processes import computes_on_cpu, number_of_processes
from qpeft.training.progress import ProgressReport
from qpeft.training.quantum import DeviceSteps
from qpeft.training.sections import Recipe
from qpeft.training.splits import Split
from qpeft.training.trainer import CheckpointingTrainer


def adapted_model(recipe: Recipe, config: PeftConfig) -> PeftModel:
    """The base model with a fresh adapter, where it will be trained."""
    model = load_model(recipe.model.name, dtype=recipe.model.dtype, trust_remote_code=recipe.model.trust_remote_code)
    return add_adapter(model.to(default_device()), config)


def make_trainer(
    recipe: Recipe,
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    training: Sequence[Encoded],
    held_out: Split | None,
    console: Console,
    device_steps: DeviceSteps | None,
) -> tuple[CheckpointingTrainer, ProgressReport]:
    """The trainer of a recipe, and what reports its progress."""
    options = recipe.training
    folder = Path(recipe.output.folder) / "checkpoints"
    learning_rate = options.learning_rate or default_learning_rate(recipe.adapter.type)
    progress, packed = ProgressReport(console), isinstance(training, PackedExamples)
    steps = options.num_steps(len(training), num_processes=number_of_processes())
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
        use_cpu=computes_on_cpu(),
        ddp_find_unused_parameters=False,
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
        train_dataset=to_dataset(training[:1] if packed else training),
        data_collator=PackedCollator() if packed else None,
        eval_dataset=to_dataset(held_out.encoded) if held_out else None,
        processing_class=tokenizer,
        callbacks=[progress],
        held_out=held_out.encoded if held_out else (),
        keep_checkpoints=options.keep_checkpoints,
        lengths=lengths(training) if options.group_by_length else None,
        device_steps=device_steps,
    )
    if packed:
        trainer.train_dataset = training  # which TRL takes for a Dataset only where it checks its argument
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    return trainer, progress

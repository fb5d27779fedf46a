"""transformers' Trainer on the model's own loss, with checkpoints that are whole or absent."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import Sampler
from transformers import Trainer, TrainerControl, TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from qpeft.data import Encoded, lengths
from qpeft.errors import AdapterError, DeviceError
from qpeft.evaluation import held_out_loss
from qpeft.evaluation.loss import CausalLoss, largest_batch
from qpeft.runs.bars import OnProgress, to_nobody
from qpeft.training.batches import LengthGroupedSampler
from qpeft.training.checkpoints import ADAPTER, checkpoints, saved_state, seal
from qpeft.training.early_stopping import HeldOutWatch
from qpeft.training.health_log import HealthMonitor
from qpeft.training.memory import evaluation_memory, memory_errors, training_memory
from qpeft.training.processes import from_main, is_main_process, staged_together, wait_for_all
from qpeft.training.quantum import DeviceSteps
from qpeft.training.resume import OrderRecord
from qpeft.training.sections import Recipe


class CheckpointingTrainer(Trainer):
    """`Trainer` on encoded examples.

    Departures: the loss is `CausalLoss`, nats per labelled token over all batches of an optimiser step and all
    processes, plus, with `router_aux_loss_coef`, so many times the model's router loss. A checkpoint is written under
    a temporary name and then renamed, so whatever kills the process leaves the last one loadable. `evaluate` gives the
    loss per token (transformers averages batches, whatever they hold), and `watch` decides from it. With `lengths`,
    those of the training examples, batches hold examples of like length; with `device_steps`, circuits of training
    steps run on a quantum device, and `health` looks at them. `run` is what checkpoints of this run, and of no other,
    are marked with. `order` stands for its batches in order.
    """

    control: TrainerControl
    state: TrainerState

    def __init__(
        self,
        *args: Any,
        router_aux_loss_coef: float | None,
        held_out: Sequence[Encoded],
        tokens_per_evaluation: int,
        keep_checkpoints: int,
        lengths: Sequence[int] | None,
        device_steps: DeviceSteps | None,
        watch: HeldOutWatch,
        health: HealthMonitor,
        run: str,
        on_progress: OnProgress = to_nobody,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        # So that transformers counts the labels of all batches of a step, which the loss is a mean over.
        self.model_accepts_loss_kwargs = True
        self.loss_of = CausalLoss(self.model)
        self._router_aux_loss_coef = router_aux_loss_coef
        # Tokens of the whole run; labels since the last log line, and how many of them were the likeliest token.
        self._counted = {"tokens": 0, "labels": 0, "hits": 0}
        self._uncounted: list[torch.Tensor] = []  # the same of each batch of this process that is not counted in yet
        self._on_progress = on_progress
        self.watch, self.health = watch, health
        self._lengths, self._device_steps, self._run = lengths, device_steps, run
        self._held_out, self._keep_checkpoints = held_out, keep_checkpoints
        self._tokens_per_evaluation = tokens_per_evaluation
        self._staging: Path | None = None
        self.order = OrderRecord()

    def train_from(self, checkpoint: Path | None) -> None:
        """Train, from a checkpoint if there is one; the model ends with the adapter that is to be kept.

        Raises: OutputError if the checkpoint is of another run; AdapterError if its adapter is not the model's.
        """
        try:
            self._train_from(checkpoint)
        finally:
            if self._device_steps is not None:
                self._device_steps.stop()
        if self.watch.keep_best:
            wait_for_all()  # the main process has written it
            self.watch.put_back(self.model)

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """As the Trainer's, for one batch. Raises: DeviceError if GPUs share it and it is for a quantum device."""
        if self._device_steps is not None:
            if isinstance(model, nn.DataParallel):
                raise DeviceError(
                    "Training on a quantum device takes one GPU or none, since calls are numbered in their order, and "
                    "here all GPUs that are seen share a batch. Show one, as CUDA_VISIBLE_DEVICES=0 does."
                )
            self._device_steps.begin(self.state.global_step, inputs)
        self.health.begin(self.state.global_step + 1, inputs)
        self.order.add(inputs["input_ids"])
        return super().training_step(model, inputs, *args, **kwargs)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Nats per labelled token: of a batch, or its share of a step that has `num_items_in_batch` of them."""
        asked = {} if self._router_aux_loss_coef is None else {"output_router_logits": True}
        labels = inputs["labels"]
        rest = {name: value for name, value in inputs.items() if name != "labels"}
        parts = self.loss_of(model, rest | asked, labels)
        labelled = parts.losses.numel()
        # DDP takes the mean of the processes' gradients; the labels are counted over all of them.
        share = self.accelerator.num_processes if num_items_in_batch is not None else 1
        loss = parts.total * share / torch.as_tensor(num_items_in_batch or labelled).clamp(min=1)
        if self._router_aux_loss_coef is not None:
            batches = self.current_gradient_accumulation_steps if num_items_in_batch is not None else 1
            loss = loss + self._router_aux_loss_coef * parts.outputs.aux_loss / batches
        # A packed row has no mask; what pads it is counted too.
        tokens = rest["attention_mask"].sum() if "attention_mask" in rest else labels.new_tensor(labels.numel())
        self._uncounted.append(torch.stack([tokens, labels.new_tensor(labelled), parts.correct.sum()]))
        return (loss, parts.outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """As the Trainer's, with the share of labels that were the likeliest token, and the tokens so far."""
        if "loss" in logs:
            self._count()
            accuracy = self._counted["hits"] / max(1, self._counted["labels"])
            logs |= {"mean_token_accuracy": accuracy, "num_tokens": float(self._counted["tokens"])}
            self._counted |= {"labels": 0, "hits": 0}
        super().log(logs, *args, **kwargs)

    def _count(self) -> None:
        """Count in the batches of all processes, each of which has to call this."""
        if self._uncounted:
            counts = self.accelerator.reduce(torch.stack(self._uncounted).sum(0), reduction="sum").tolist()
            self._uncounted.clear()
            for name, count in zip(self._counted, counts, strict=True):
                self._counted[name] += count

    def try_memory(self, recipe: Recipe, training: Sequence[Encoded]) -> None:
        """Try the largest evaluation batch and, on a GPU, the largest training batch, before time is spent on others.

        On a CPU no training step is tried: it would take as long as any other, and a system that runs out of memory
        ends the process rather than say so. Raises: MemoryLimitError if one of them does not fit.
        """
        if self.model.device.type != "cpu":
            tokens = lengths(training)
            longest = sorted(range(len(tokens)), key=tokens.__getitem__)[-recipe.training.batch_size :]
            with training_memory(recipe):
                self.try_step(longest)
        if self._held_out:
            limit = self._tokens_per_evaluation
            with evaluation_memory(recipe):
                held_out_loss(self.model, largest_batch(self._held_out, tokens_per_batch=limit), tokens_per_batch=limit)

    def try_step(self, examples: Sequence[int]) -> None:
        """Forward and backward pass of one batch, of which nothing stays. Raises: what torch raises."""
        assert self.train_dataset is not None
        inputs = self._prepare_inputs(self.data_collator([self.train_dataset[number] for number in examples]))
        if self.args.gradient_checkpointing:
            with warnings.catch_warnings():
                # The name is to change in transformers 6; the new one is unknown to 5.0.
                warnings.simplefilter("ignore", FutureWarning)
                self.model.gradient_checkpointing_enable(self.args.gradient_checkpointing_kwargs)
        try:
            with torch.random.fork_rng():  # dropout draws
                self.model.train()
                self.compute_loss(self.model, inputs).backward()
        finally:
            self.model.zero_grad(set_to_none=True)
            self._uncounted.clear()

    def _train_from(self, checkpoint: Path | None) -> None:
        if checkpoint is None:
            self.train()
            return
        self._restore(saved_state(checkpoint, run=self._run))
        state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
        if state.global_step < self.args.max_steps and not self.watch.has_enough:
            self.train(resume_from_checkpoint=str(checkpoint))
            return
        # transformers would take one step more than asked for.
        self._load_from_checkpoint(str(checkpoint))
        self.state = state

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        saved, present = load_file(Path(resume_from_checkpoint) / ADAPTER), get_peft_model_state_dict(self.model)
        if other := sorted(saved.keys() ^ present.keys()):
            raise AdapterError(
                f"The adapter in {resume_from_checkpoint} is not that of the model: only one of them has {other[0]!r}."
            )
        # PEFT only warns of weights that it could not place.
        assert all(torch.equal(weight, present[name].cpu()) for name, weight in saved.items()), "not loaded"

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """{"eval_loss": nats per trained-on token}, also logged and shown to callbacks."""
        if self._device_steps is not None:
            self._device_steps.pause()
        with memory_errors("An evaluation", "Lower data.max_length, or leave long examples out (data.drop_longer)."):
            loss = held_out_loss(
                self.model,
                self._held_out,
                tokens_per_batch=self._tokens_per_evaluation,
                on_progress=self._on_progress,
            ).loss
        # One for all, to the last bit: what is decided by it must not differ between processes.
        metrics = {"eval_loss": from_main(lambda: loss)}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        if (
            self.watch.see(self.state.global_step, metrics["eval_loss"])
            and self.watch.keep_best
            and self.args.should_save
        ):
            self.watch.save(self.model)
            self._forget_other_bests()
        self.control.should_training_stop |= self.watch.has_enough
        return metrics

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        if self._lengths is None:
            sampler: Sampler[int] | None = super()._get_train_sampler(train_dataset)
            return sampler
        size = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return LengthGroupedSampler(self._lengths, batch_size=size, seed=self.args.seed)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self._count()
        folder = Path(self.args.output_dir)
        name = f"checkpoint-{self.state.global_step}"
        with staged_together(folder / name) as temporary:
            self._staging = temporary
            try:
                super()._save_checkpoint(model, trial)
            finally:
                self._staging = None
            wait_for_all()
            if is_main_process():
                _move_up(temporary / name)
                seal(temporary, run=self._run, state=self._remembered())
        if is_main_process():
            for old in checkpoints(folder)[: -self._keep_checkpoints]:
                shutil.rmtree(old)
            self._forget_other_bests()

    def _forget_other_bests(self) -> None:
        whole = checkpoints(Path(self.args.output_dir))
        self.watch.forget_others([saved_state(path, run=self._run)["best"] for path in whole])

    def _remembered(self) -> dict[str, Any]:
        """What a checkpoint holds beyond transformers' own."""
        return {
            "best": self.watch.state(),
            "counted": self._counted,
            "health": self.health.state(),
            "order": self.order.digest,
        }

    def _restore(self, remembered: dict[str, Any]) -> None:
        self.watch.restore(remembered["best"])
        # Checkpoints of before hold the tokens alone.
        self._counted |= remembered.get("counted") or {"tokens": remembered["tokens"]}
        self.health.restore(remembered["health"])
        self.order.digest = remembered["order"]

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging) if self._staging is not None else str(super()._get_output_dir(trial))


def _move_up(folder: Path) -> None:
    """Move what a folder holds into its parent."""
    for file in folder.iterdir():
        file.rename(folder.parent / file.name)
    folder.rmdir()

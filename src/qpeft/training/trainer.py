"""TRL's SFTTrainer with checkpoints that are whole or absent, and held-out loss per token."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import transformers
from torch import nn
from torch.utils.data import Sampler
from transformers import TrainerControl, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from trl import SFTTrainer

from qpeft.data import Encoded
from qpeft.errors import DeviceError
from qpeft.evaluation import held_out_loss
from qpeft.training.checkpoints import checkpoints
from qpeft.training.processes import from_main, is_main_process, staged_together, wait_for_all
from qpeft.training.quantum import DeviceSteps
from qpeft.training.sampling import LengthGroupedSampler


class CheckpointingTrainer(SFTTrainer):
    """`SFTTrainer` on encoded examples.

    Departures: a checkpoint is written under a temporary name and then renamed, so whatever kills the process leaves
    the last one loadable; `evaluate` gives the loss per token (transformers averages batches, whatever they hold); with
    `lengths`, those of the training examples, batches hold examples of like length; with `device_steps`, circuits of
    training steps run on a quantum device.
    """

    control: TrainerControl
    state: TrainerState

    def __init__(
        self,
        *args: Any,
        held_out: Sequence[Encoded],
        keep_checkpoints: int,
        lengths: Sequence[int] | None,
        device_steps: DeviceSteps | None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._lengths, self._device_steps = lengths, device_steps
        self._held_out, self._keep_checkpoints = held_out, keep_checkpoints
        self._staging: Path | None = None

    def train_from(self, checkpoint: Path | None) -> None:
        """Train, from a checkpoint if there is one."""
        try:
            self._train_from(checkpoint)
        finally:
            if self._device_steps is not None:
                self._device_steps.pause()

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """As the Trainer's, for one batch. Raises: DeviceError if GPUs share it and it is for a quantum device."""
        if self._device_steps is not None:
            if isinstance(model, nn.DataParallel):
                raise DeviceError(
                    "Training on a quantum device takes one GPU or none, since calls are numbered in their order, and "
                    "here all GPUs that are seen share a batch. Show one, as CUDA_VISIBLE_DEVICES=0 does."
                )
            self._device_steps.begin(self.state.global_step, inputs)
        return super().training_step(model, inputs, *args, **kwargs)

    def _train_from(self, checkpoint: Path | None) -> None:
        if checkpoint is None:
            self.train()
            return
        state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
        if state.global_step < self.args.max_steps:
            self.train(resume_from_checkpoint=str(checkpoint))
            return
        # transformers would take one step more than asked for.
        self._load_from_checkpoint(str(checkpoint))
        self.state = state

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """{"eval_loss": nats per trained-on token}, also logged and shown to callbacks."""
        if self._device_steps is not None:
            self._device_steps.pause()
        loss = held_out_loss(self.model, self._held_out).loss
        # One for all, to the last bit: what is decided by it must not differ between processes.
        metrics = {"eval_loss": from_main(lambda: loss)}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        if self._lengths is None:
            sampler: Sampler[int] | None = super()._get_train_sampler(train_dataset)
            return sampler
        size = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return LengthGroupedSampler(self._lengths, batch_size=size, seed=self.args.seed)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = Path(self.args.output_dir)
        name = f"checkpoint-{self.state.global_step}"
        with staged_together(folder / name) as temporary:
            self._staging = temporary
            try:
                # Not SFTTrainer's own, which adds a model card to every checkpoint.
                transformers.Trainer._save_checkpoint(self, model, trial)
            finally:
                self._staging = None
            wait_for_all()
            if is_main_process():
                _move_up(temporary / name)
        if is_main_process():
            for old in checkpoints(folder)[: -self._keep_checkpoints]:
                shutil.rmtree(old)

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging) if self._staging is not None else str(super()._get_output_dir(trial))


def _move_up(folder: Path) -> None:
    """Move what a folder holds into its parent."""
    for file in folder.iterdir():
        file.rename(folder.parent / file.name)
    folder.rmdir()

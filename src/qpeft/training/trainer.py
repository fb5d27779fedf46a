"""Trainers whose runs can be killed and resumed bit for bit: a mixin for any trainer, and our own."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import Sampler
from transformers import Trainer, TrainerControl, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_pt_utils import get_length_grouped_indices

from qpeft.data import Encoded, lengths
from qpeft.errors import AdapterError, DeviceError
from qpeft.evaluation import held_out_loss
from qpeft.evaluation.loss import CausalLoss, largest_batch
from qpeft.runs.bars import OnProgress, to_nobody
from qpeft.training.checkpoints import ADAPTER, checkpoints, saved_state, seal
from qpeft.training.early_stopping import HeldOutWatch
from qpeft.training.health_log import HealthMonitor
from qpeft.training.memory import evaluation_memory, memory_errors, training_memory
from qpeft.training.processes import from_main, is_main_process, staged_together, wait_for_all
from qpeft.training.quantum import DeviceSteps
from qpeft.training.resume import BatchHash
from qpeft.training.sections import Recipe


class RunMixin(Trainer):
    """Everything that a run of ours adds to a trainer of transformers or TRL, whatever that trainer trains on.

    It adds checkpoints that are whole or absent, resuming to the last bit, a hash of all batches, looks at the health
    of circuits, steps on a quantum device, early stopping with the best adapter kept, and memory tried first.
    It is a `Trainer` itself and stands first among the bases, so that `super()` here is the other trainer:

        class DpoRun(RunMixin, DPOTrainer):
            def read_batch(self, inputs): ...
            def measure_held_out(self): ...

        DpoRun(watch=..., health=..., run=..., model=..., args=..., ...).train_from(checkpoint)

    What such a class defines, all of it optional but `measure_held_out`:
    - `read_batch`: the tokens of a batch and which of them are trained on, if the batch has them under other names.
      A trainer that generates its tokens, as GRPO does, returns None, and calls `begin_batch` from `compute_loss`.
    - `measure_held_out`: the number that decides which adapter is the best; lower is better.
    - `try_evaluation`: the largest batch of that measurement, to see whether it fits into memory.
    - `remembered` and `restore`: what else a resumed run must know, added to what they hold here.

    What it draws at random must come from torch's, NumPy's or Python's own generators, whose states transformers saves.

    Args:
        watch: decides by held-out losses; it is also one of the callbacks.
        health: looks at circuits; it is also one of the callbacks.
        run: fingerprint that marks checkpoints of this run and of no other.
        keep_checkpoints: how many of the latest stay.
        device_steps: puts circuits of training steps on a quantum device; None for the simulator.
        args, kwargs: of the other trainer.
    """

    control: TrainerControl
    state: TrainerState

    def __init__(
        self,
        *args: Any,
        watch: HeldOutWatch,
        health: HealthMonitor,
        run: str,
        keep_checkpoints: int = 1,
        device_steps: DeviceSteps | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.watch, self.health, self.batch_hash = watch, health, BatchHash()
        self._run, self._keep_checkpoints, self._device_steps = run, keep_checkpoints, device_steps
        self._staging: Path | None = None

    def read_batch(self, inputs: Any) -> Mapping[str, Any] | None:
        """Return `input_ids`, `labels` and, if there is one, `attention_mask` of a batch; None if not known yet."""
        found: Mapping[str, Any] = inputs
        return found

    def measure_held_out(self) -> float:
        """Return the held-out loss, lower is better."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it measures on held-out examples")

    def try_evaluation(self, recipe: Recipe) -> None:
        """Evaluate the largest batch, of which nothing stays. Raises: MemoryLimitError."""

    def remembered(self) -> dict[str, Any]:
        """Return what a checkpoint holds beyond transformers' own files, as JSON has it."""
        return {"best": self.watch.state(), "health": self.health.state(), "order": self.batch_hash.digest}

    def restore(self, remembered: dict[str, Any]) -> None:
        """Go on from what `remembered` returned."""
        self.watch.restore(remembered["best"])
        self.health.restore(remembered["health"])
        self.batch_hash.digest = remembered["order"]

    def train_from(self, checkpoint: Path | None) -> None:
        """Train, from a checkpoint if there is one; the model ends with the adapter that is to be kept.

        Raises: OutputError if the checkpoint is of another run; AdapterError if its adapter is not the model's.
        """
        try:
            if checkpoint is None:
                self.train()
            else:
                self.restore(saved_state(checkpoint, run=self._run))
                state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
                if state.global_step < self.args.max_steps and not self.watch.has_enough:
                    self.train(resume_from_checkpoint=str(checkpoint))
                else:
                    # `train` would take one step more than asked for.
                    self._load_from_checkpoint(str(checkpoint))
                    self.state = state
        finally:
            if self._device_steps is not None:
                self._device_steps.stop()
        if self.watch.keep_best:
            wait_for_all()  # the main process has written it
            self.watch.put_back(self.model)

    def training_step(self, model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Take the trainer's own step after `begin_batch`.

        Args:
            model: the adapted model, or what wraps it for several processes.
            inputs: one batch.
            args, kwargs: of the trainer.
        """
        batch = self.read_batch(inputs)
        if batch is not None:
            self.begin_batch(model, batch)
        return super().training_step(model, inputs, *args, **kwargs)

    def begin_batch(self, model: nn.Module, batch: Mapping[str, Any]) -> None:
        """Tell device, health and hash of a batch, before its forward pass.

        Raises: DeviceError if GPUs share the batch and it is for a quantum device.
        """
        if self._device_steps is not None:
            if isinstance(model, nn.DataParallel):
                raise DeviceError(
                    "Training on a quantum device takes one GPU or none, since calls are numbered in their order, and "
                    "here all GPUs that are seen share a batch. Show one, as CUDA_VISIBLE_DEVICES=0 does."
                )
            self._device_steps.begin(self.state.global_step, batch)
        self.health.begin(self.state.global_step + 1, batch)
        self.batch_hash.add(batch["input_ids"])

    def try_memory(self, recipe: Recipe, training: Sequence[Encoded]) -> None:
        """Try the largest evaluation batch and, on a GPU, the largest training batch, before time is spent on others.

        Raises: MemoryLimitError if one of them does not fit.
        """
        # On a CPU a training step takes as long as any other, and a system without memory ends the process unasked.
        if self.model.device.type != "cpu":
            tokens = lengths(training)
            longest = sorted(range(len(tokens)), key=tokens.__getitem__)[-recipe.training.batch_size :]
            with training_memory(recipe):
                self.try_step(longest)
        self.try_evaluation(recipe)

    def try_step(self, examples: Sequence[int]) -> None:
        """Run forward and backward pass of one batch of training examples, of which nothing stays."""
        assert self.train_dataset is not None
        inputs = self._prepare_inputs(self.data_collator([self.train_dataset[number] for number in examples]))
        if self.args.gradient_checkpointing:
            with warnings.catch_warnings():
                # The name is to change in transformers 6; the new one is unknown to 5.0.
                warnings.simplefilter("ignore", FutureWarning)
                self.model.gradient_checkpointing_enable(self.args.gradient_checkpointing_kwargs)
        try:
            # Dropout draws, and the run must begin with the generator as it was.
            with torch.random.fork_rng():
                self.model.train()
                self.compute_loss(self.model, inputs).backward()
        finally:
            self.model.zero_grad(set_to_none=True)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Return {"eval_loss": what `measure_held_out` gives}, also logged and shown to callbacks."""
        if self._device_steps is not None:
            self._device_steps.pause()
        with memory_errors("An evaluation", "Lower data.max_length, or leave long examples out (data.drop_longer)."):
            loss = self.measure_held_out()
        # One for all, to the last bit: what is decided by it must not differ between processes.
        metrics = {"eval_loss": from_main(lambda: loss)}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        is_best = self.watch.see(self.state.global_step, metrics["eval_loss"])
        if is_best and self.watch.keep_best and self.args.should_save:
            self.watch.save(self.model)
            self._forget_other_bests()
        self.control.should_training_stop |= self.watch.has_enough
        return metrics

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder, name = Path(self.args.output_dir), f"checkpoint-{self.state.global_step}"
        # All that a checkpoint holds is written under another name first: a rename is whole or has not happened.
        with staged_together(folder / name) as temporary:
            self._staging = temporary
            try:
                super()._save_checkpoint(model, trial)
            finally:
                self._staging = None
            wait_for_all()
            if is_main_process():
                # transformers writes into a folder of the step's name inside of what it is told.
                for file in (temporary / name).iterdir():
                    file.rename(temporary / file.name)
                (temporary / name).rmdir()
                seal(temporary, run=self._run, state=self.remembered())
        if is_main_process():
            # Older ones go only now that this one is whole.
            for old in checkpoints(folder)[: -self._keep_checkpoints]:
                shutil.rmtree(old)
            self._forget_other_bests()

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging) if self._staging is not None else str(super()._get_output_dir(trial))

    def _forget_other_bests(self) -> None:
        # A resumed run needs the best adapter that its checkpoint speaks of, even if a better one came since.
        whole = checkpoints(Path(self.args.output_dir))
        self.watch.forget_others([saved_state(path, run=self._run)["best"] for path in whole])

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        saved, present = load_file(Path(resume_from_checkpoint) / ADAPTER), get_peft_model_state_dict(self.model)
        if other := sorted(saved.keys() ^ present.keys()):
            raise AdapterError(
                f"The adapter in {resume_from_checkpoint} is not that of the model: only one of them has {other[0]!r}."
            )
        # PEFT only warns of weights that it could not place.
        assert all(torch.equal(weight, present[name].cpu()) for name, weight in saved.items()), "not loaded"


class CheckpointingTrainer(RunMixin):
    """A trainer of encoded examples by `CausalLoss`, nats per labelled token.

        loss = sum of losses over all batches and processes of a step / labelled tokens in them
               + router_aux_loss_coef * the model's router loss

    transformers averages batches, whatever they hold, both in training and in `evaluate`; here each token counts once.

    Args:
        held_out: examples that `evaluate` measures.
        tokens_per_evaluation: padded tokens of one batch of them.
        router_aux_loss_coef: weight of the router loss of a mixture of experts; None leaves it out.
        lengths: of the training examples, for batches of examples of like length; None for batches at random.
        on_progress: told how far an evaluation is.
        args, kwargs: of `RunMixin` and `Trainer`.
    """

    def __init__(
        self,
        *args: Any,
        held_out: Sequence[Encoded],
        tokens_per_evaluation: int,
        router_aux_loss_coef: float | None = None,
        lengths: Sequence[int] | None = None,
        on_progress: OnProgress = to_nobody,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        # So that transformers counts the labels of all batches of a step, which the loss is a mean over.
        self.model_accepts_loss_kwargs = True
        self.loss_of = CausalLoss(self.model)
        self._router_aux_loss_coef, self._lengths, self._on_progress = router_aux_loss_coef, lengths, on_progress
        self._held_out, self._tokens_per_evaluation = held_out, tokens_per_evaluation
        # Tokens of the whole run; labels since the last log line, and how many of them were the likeliest token.
        self._counted = {"tokens": 0, "labels": 0, "hits": 0}
        # The same of each batch of this process. Kept on the GPU until it is needed: reading it makes the CPU wait.
        self._uncounted: list[torch.Tensor] = []

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return the loss of a batch, or its share of that of a step.

        Args:
            model: the adapted model, or what wraps it.
            inputs: `input_ids` and `labels` (batch, sequence), and others of the model's.
            return_outputs: whether to return (loss, the model's outputs).
            num_items_in_batch: labelled tokens of the whole step, over all processes; None for those of this batch.
        """
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
        """Log also the share of labels that were the likeliest token, and the tokens so far.

        Args:
            logs: figures by name.
            args, kwargs: of `Trainer`.
        """
        if "loss" in logs:
            self._count()
            accuracy = self._counted["hits"] / max(1, self._counted["labels"])
            logs |= {"mean_token_accuracy": accuracy, "num_tokens": float(self._counted["tokens"])}
            self._counted |= {"labels": 0, "hits": 0}
        super().log(logs, *args, **kwargs)

    def _count(self) -> None:
        # The processes meet in here, so each of them has to call it, as often as the others.
        if self._uncounted:
            counts = self.accelerator.reduce(torch.stack(self._uncounted).sum(0), reduction="sum").tolist()
            self._uncounted.clear()
            for name, count in zip(self._counted, counts, strict=True):
                self._counted[name] += count

    def measure_held_out(self) -> float:
        """Return nats per trained-on token."""
        limit, progress = self._tokens_per_evaluation, self._on_progress
        return held_out_loss(self.model, self._held_out, tokens_per_batch=limit, on_progress=progress).loss

    def try_evaluation(self, recipe: Recipe) -> None:
        """Measure the largest batch of held-out examples. Raises: MemoryLimitError."""
        if self._held_out:
            limit = self._tokens_per_evaluation
            with evaluation_memory(recipe):
                held_out_loss(self.model, largest_batch(self._held_out, tokens_per_batch=limit), tokens_per_batch=limit)

    def try_step(self, examples: Sequence[int]) -> None:
        """Run one batch of training examples, of which nothing stays, not even its count of tokens."""
        try:
            super().try_step(examples)
        finally:
            self._uncounted.clear()

    def remembered(self) -> dict[str, Any]:
        """Return what `RunMixin` remembers, and the tokens counted so far."""
        return super().remembered() | {"counted": self._counted}

    def restore(self, remembered: dict[str, Any]) -> None:
        """Go on from what `remembered` returned."""
        super().restore(remembered)
        # Checkpoints of before hold the tokens alone.
        self._counted |= remembered.get("counted") or {"tokens": remembered["tokens"]}

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self._count()
        super()._save_checkpoint(model, trial)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        if self._lengths is None:
            sampler: Sampler[int] | None = super()._get_train_sampler(train_dataset)
            return sampler
        size = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return LengthGroupedSampler(self._lengths, batch_size=size, seed=self.args.seed)


class LengthGroupedSampler(Sampler[int]):
    """A random order in which examples of like length lie in the same batch.

    It depends on seed and epoch alone, so that a resumed run meets the same batches; that of transformers draws from
    the generator that dropout draws from too.
    """

    def __init__(self, lengths: Sequence[int], *, batch_size: int, seed: int) -> None:
        self._lengths, self._batch_size, self._seed = list(lengths), batch_size, seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch; accelerate calls this before each pass over the data."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed + self._epoch)
        yield from get_length_grouped_indices(self._lengths, self._batch_size, generator=generator)

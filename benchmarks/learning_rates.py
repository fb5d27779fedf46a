"""The best peak learning rate of every method, for the defaults in `qpeft/adapters/learning_rates.py`.

    python benchmarks/learning_rates.py TRAIN.jsonl [--methods qtha lora ...] [--steps 60] [--batch 8] [--seeds 1]
        [--held-out 128] [--threads 2] [--folder runs/learning_rates]

Word problems with columns question, equation and answer, in the form of examples/word_problems.yaml; SmolLM2-135M;
every method with the defaults of its config, on q_proj and v_proj. A tenth of the file, chosen by the hash of its text,
judges; no other file is read. Rates are 1 and 3 times powers of ten. Each method begins at 3e-3 and goes to the better
neighbour until both neighbours of the best rate are worse, so no best rate is at an edge. Finished runs stay in the
folder: the same command goes on where it was stopped. benchmarks/results/learning_rates.json is written at the end.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from timing import machine, result_name, save

from qpeft.adapters import ADAPTERS
from qpeft.adapters.learning_rates import default_learning_rate
from qpeft.models import PACKAGE_MODEL
from qpeft.runs import read_record
from qpeft.training import train
from qpeft.training.config import parse_recipe

METHODS = [*ADAPTERS, "lora", "dora", "lokr", "psoft", "vera", "oft"]
FIRST = -5
"""On the scale of `rate`: 3e-3."""
GIVEN_UP = 6
"""Rates without one finite loss, after which a search ends."""


def rate(place: int) -> float:
    """The rates in their order, place 0 being 1: ..., 0.1, 0.3, 1, 3, ..."""
    return float(f"{3 if place % 2 else 1}e{place // 2}")


def recipe(method: str, peak: float, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """One run. Its folder is named after everything that differs between runs, so that none is taken for another."""
    name = f"{method}-{peak:g}-seed{seed}-{options.steps}x{options.batch}-{options.held_out}"
    return {
        "seed": seed,
        "model": {"name": PACKAGE_MODEL},
        "data": {
            "train": str(options.data),
            "hold_out": 0.1,
            "eval_limit": options.held_out,
            "prompt": "{question}",
            "response": "{equation}\n#### {answer}",
        },
        "adapter": {"type": method, "target_modules": ["q_proj", "v_proj"]},
        "training": {
            "steps": options.steps,
            "batch_size": options.batch,
            "learning_rate": peak,
            "group_by_length": True,
            "checkpoint_every": 20,
            "report_to": "none",
        },
        "evaluation": {"before": False},
        "output": {"folder": str(options.folder / name)},
    }


def run(values: dict[str, Any]) -> dict[str, Any]:
    """The record of a run: of the finished one in its folder, or trained now, from its last checkpoint if any."""
    folder = Path(values["output"]["folder"])
    if (folder / "run.json").exists() and (record := read_record(folder))["state"] == "finished":
        return record
    return train(parse_recipe(values, source="benchmark"), resume=True).record


def search(loss_at: Callable[[int], float]) -> dict[int, float]:
    """Losses by place, from `FIRST` downhill until both neighbours of the lowest are known. A tie goes to the lower.

    Ends after `GIVEN_UP` rates if none of them has a finite loss.
    """
    losses: dict[int, float] = {}
    place: int | None = FIRST
    while place is not None:
        losses[place] = loss_at(place)
        if len(losses) == GIVEN_UP and not any(map(math.isfinite, losses.values())):
            break
        best = min(losses, key=lambda one: (losses[one], one))
        place = next((one for one in (best - 1, best + 1) if one not in losses), None)
    return losses


def measure(method: str, options: argparse.Namespace) -> dict[str, Any]:
    """A row of the table: losses by rate, the best of them, and what the method costs."""
    records: list[dict[str, Any]] = []

    def loss_at(place: int) -> float:
        runs = [run(recipe(method, rate(place), seed, options)) for seed in range(options.seeds)]
        records.extend(runs)
        loss = statistics.mean(one["after"]["loss"] for one in runs)
        print(f"{method} at {rate(place):g}: held-out loss {loss:.4f}", flush=True)
        return loss if math.isfinite(loss) else math.inf

    losses = search(loss_at)
    best = min(losses, key=lambda one: (losses[one], one))
    return {
        "method": method,
        "parameters": records[0]["adapter"]["trainable_parameters"],
        "best": rate(best) if math.isfinite(losses[best]) else None,
        "default": default_learning_rate(method).value,
        "losses": {f"{rate(place):g}": losses[place] for place in sorted(losses)},
        "seconds_per_step": statistics.median(one["seconds_per_step"] for one in records),
    }


def main() -> None:
    """Print the table and write benchmarks/results/learning_rates.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--methods", nargs="+", default=METHODS, metavar="TYPE", help="adapter types of recipes")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--held-out", type=int, default=128, help="examples that judge")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path("runs/learning_rates"))
    parser.add_argument("--name", type=result_name, default="learning_rates", help="benchmarks/results/NAME.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = [measure(method, options) for method in options.methods]
    table = Table("method", "parameters", "best rate", "default now", "s/step", "held-out loss at each rate")
    for row in rows:
        losses = "  ".join(f"{peak}: {loss:.4f}" for peak, loss in row["losses"].items())
        best = "none" if row["best"] is None else f"{row['best']:g}"
        cells = (row["method"], f"{row['parameters']:,}", best, f"{row['default']:g}")
        table.add_row(*cells, f"{row['seconds_per_step']:.2f}", losses)
    console = Console(width=160)
    console.print(f"{options.steps} steps of {options.batch}, {options.seeds} seeds; {machine()}")
    console.print(table)
    settings = {name: value for name, value in vars(options).items() if name not in ("data", "folder", "name")}
    save(options.name, {"settings": settings, "rows": rows})


if __name__ == "__main__":
    main()

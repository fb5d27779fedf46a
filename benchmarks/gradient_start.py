"""Does a start from the gradient pay in a short training? Against the usual start at equal steps, and at its best rate.

    python benchmarks/gradient_start.py TRAIN.jsonl [--folder runs/gradient_start] [--limit N] [--forms dense mpo]

Word problems with columns question, equation and answer; SmolLM2-135M; adapters on q_proj and v_proj; 48 steps of 4.
Two forms: QTHA with dense factors of rank 2, and the default with tensor networks. The rate of each is the best of
three for the usual start with seed 0, and the start from the gradient has no rates of its own: that favours the usual
start. A tenth of the file judges, every 16 steps. 12 trainings; finished ones stay in the folder, and the same
command goes on. `--limit` runs at most so many. benchmarks/results/gradient_start.json is written at the end.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from timing import save

from qpeft.models import PACKAGE_MODEL
from qpeft.runs import read_record
from qpeft.training import train
from qpeft.training.config import parse_recipe

FORMS = {
    "dense": {"type": "qtha", "rank": 2, "alpha": 4.0, "down": "dense", "up": "dense"},
    "mpo": {"type": "qtha"},
}
RATES = (3e-3, 1e-2, 3e-2)
SEEDS = (0, 1)


def recipe(form: str, init: str, peak: float, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """One run, in a folder named after what differs between runs.

    Args:
        form: one of `FORMS`.
        init: option of the adapter.
        peak: learning rate.
        seed: of weights and order.
        options: of the command line.
    """
    name = f"{form}-{init}-{peak:g}-seed{seed}"
    return {
        "seed": seed,
        "model": {"name": PACKAGE_MODEL},
        "data": {
            "train": options.train,
            "hold_out": 0.1,
            "eval_limit": 100,
            "prompt": "{question}",
            "response": "{equation}\n#### {answer}",
        },
        "adapter": {**FORMS[form], "init": init, "target_modules": ["q_proj", "v_proj"]},
        "training": {
            "steps": 48,
            "batch_size": 4,
            "learning_rate": peak,
            "group_by_length": True,
            "checkpoint_every": None,
            "eval_every": 16,
            "log_every": 2,
            "report_to": "none",
            "try_memory": False,
        },
        "evaluation": {"before": False},
        "output": {"folder": f"{options.folder}/{name}"},
    }


def main() -> None:
    """Train what is missing, print the table and write benchmarks/results/gradient_start.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train")
    parser.add_argument("--folder", default="runs/gradient_start")
    parser.add_argument("--limit", type=int, default=12)
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=[*FORMS])
    options, console = parser.parse_args(), Console()
    left = options.limit

    def losses(form: str, init: str, peak: float, seed: int) -> dict[int, float]:
        """Held-out losses by step; trained now if they are not there."""
        nonlocal left
        values = recipe(form, init, peak, seed, options)
        folder = Path(values["output"]["folder"])
        if not (folder / "run.json").exists() or read_record(folder)["state"] != "finished":
            if left <= 0:
                raise SystemExit("as many as --limit said; the same command goes on")
            left -= 1
            train(parse_recipe(values, source=folder.name), resume=True, console=console)
        record = read_record(folder)
        curve = {one["step"]: one["eval_loss"] for one in record["history"] if "eval_loss" in one}
        return curve | {record["steps"]: record["after"]["loss"]}

    rows = []
    for form in options.forms:
        tried = {peak: losses(form, "random", peak, 0) for peak in RATES}
        best = min(tried, key=lambda peak: tried[peak][48])
        for init in ("random", "gradient"):
            rows += [(form, init, best, seed, losses(form, init, best, seed)) for seed in SEEDS]
        rows += [(form, "random", peak, 0, curve) for peak, curve in tried.items() if peak != best]
    table = Table("form", "start", "rate", "seed", *(f"loss at {step}" for step in rows[0][4]))
    for form, init, peak, seed, curve in rows:
        table.add_row(form, init, f"{peak:g}", str(seed), *(f"{loss:.4f}" for loss in curve.values()))
    console.print(table)
    keys = ("form", "start", "rate", "seed", "loss")
    save("gradient_start", [dict(zip(keys, row, strict=True)) for row in rows])


if __name__ == "__main__":
    main()

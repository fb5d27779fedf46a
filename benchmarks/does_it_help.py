"""Does the circuit help? QTHA against itself without a circuit, against classical units, and against LoRA.

    python benchmarks/does_it_help.py TRAIN.jsonl [--steps 60] [--batch 8] [--seeds 3] [--rates 3e-3 1e-2] [--jobs 1]

Word problems with columns question, equation and answer, in the form of examples/word_problems.yaml. A tenth of the
file, chosen by the hash of its text, is the validation set; no other file is read. Every method gets the same data in
the same order per seed, and the same learning rates. The table says mean and range over seeds at the best learning rate
of each method, and the paired difference to QTHA. Finished runs are kept in benchmarks/results/does_it_help.json and
not run again; a GPU is used if there is one.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import multiprocessing
import random
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from rich.console import Console
from rich.table import Table
from timing import machine
from torch import Tensor, nn

from qpeft import QthaConfig
from qpeft.data import Encoded, encode_all, hold_out, load_examples
from qpeft.evaluation import held_out_loss
from qpeft.models import PACKAGE_MODEL, default_device, load_model, load_tokenizer

TARGETS = ["q_proj", "v_proj"]
RESULTS = Path(__file__).parent / "results/does_it_help.json"
RESPONSE = "{equation}\n#### {answer}"


METHODS: dict[str, PeftConfig] = {
    "QTHA": QthaConfig(target_modules=TARGETS),
    "no circuit": QthaConfig.preset("no_circuit", target_modules=TARGETS),
    "frozen circuit": QthaConfig.preset("frozen_circuit", target_modules=TARGETS),
    "tanh units": QthaConfig.preset("tanh_twin", target_modules=TARGETS),
    "LoRA r=8": LoraConfig(r=8, lora_alpha=16, target_modules=TARGETS),
    "LoRA r=2": LoraConfig(r=2, lora_alpha=4, target_modules=TARGETS),
}


@dataclass(frozen=True)
class Study:
    """What all runs share."""

    train: list[Encoded]
    held_out: list[Encoded]
    steps: int
    batch: int
    threads: int


def adapted(name: str, seed: int) -> PeftModel:
    """The model with a fresh adapter."""
    torch.manual_seed(seed)
    return get_peft_model(load_model(PACKAGE_MODEL).to(default_device()), METHODS[name])


def run(study: Study, name: str, rate: float, seed: int) -> dict:
    """Train one adapter; its validation loss and number of parameters."""
    torch.set_num_threads(study.threads)
    steps, batch = study.steps, study.batch
    model = adapted(name, seed).train()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.0)
    warmup = max(1, steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * step / steps)))
    )
    order = random.Random(seed).sample(range(len(study.train)), steps * batch)
    for step in range(steps):
        chosen = [study.train[index] for index in order[step * batch : (step + 1) * batch]]
        pad_loss(model, chosen).backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    loss = held_out_loss(model, study.held_out).loss
    return {"method": name, "rate": rate, "seed": seed, "loss": loss, "parameters": sum(w.numel() for w in weights)}


def pad_loss(model: PeftModel, chosen: list[Encoded]) -> Tensor:
    """Mean loss per trained-on token of a padded batch."""
    longest = max(len(one.input_ids) for one in chosen)
    rows = [(one, longest - len(one.input_ids)) for one in chosen]
    columns = {
        "input_ids": [one.input_ids + [0] * missing for one, missing in rows],
        "attention_mask": [[1] * len(one.input_ids) + [0] * missing for one, missing in rows],
        "labels": [one.labels + [-100] * missing for one, missing in rows],
    }
    loss: Tensor = model(**{name: torch.tensor(column, device=model.device) for name, column in columns.items()}).loss
    return loss


def table(results: list[dict], rates: Sequence[float], seeds: int, before: float) -> Table:
    """Best learning rate per method, by the mean over seeds."""
    found = {(one["method"], one["rate"], one["seed"]): one for one in results}
    rows = Table("method", "parameters", "learning rate", "validation loss", "range over seeds", "minus QTHA, per seed")
    rows.add_row("base model", "0", "-", f"{before:.4f}", "", "")
    reference: list[float] = []
    for name in METHODS:
        by_rate = {rate: [found[name, rate, seed]["loss"] for seed in range(seeds)] for rate in rates}
        rate, losses = min(by_rate.items(), key=lambda item: statistics.mean(item[1]))
        reference = reference or losses
        edge = " (edge of grid)" if rate in (min(rates), max(rates)) else ""
        differences = ", ".join(f"{a - b:+.3f}" for a, b in zip(losses, reference, strict=True))
        rows.add_row(
            name,
            f"{found[name, rate, 0]['parameters']:,}",
            f"{rate:.0e}{edge}",
            f"{statistics.mean(losses):.4f}",
            f"{min(losses):.4f} to {max(losses):.4f}",
            "" if name == "QTHA" else differences,
        )
    return rows


def main() -> None:
    """Run what has not been run yet, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", help="JSONL file with question, equation and answer")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rates", type=float, nargs="+", default=[3e-3, 1e-2])
    parser.add_argument("--items", type=int, help="use only the first so many of the validation items")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time, each in a process of its own")
    options = parser.parse_args()
    console = Console(width=140, highlight=False)
    examples = load_examples(options.train, prompt="{question}", response=RESPONSE)
    training, validation = hold_out(examples, len(examples) // 10)
    tokenizer = load_tokenizer(PACKAGE_MODEL)
    train, held_out = encode_all(tokenizer, training), encode_all(tokenizer, validation[: options.items])
    study = Study(train, held_out, options.steps, options.batch, options.threads)
    settings = {"steps": study.steps, "batch": study.batch, "response": RESPONSE, "validation_items": len(held_out)}

    record = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if record.get("settings") != settings:
        before = held_out_loss(load_model(PACKAGE_MODEL).to(default_device()), held_out).loss
        record = {"machine": machine(), "settings": settings, "before": before, "results": []}
    done = {(one["method"], one["rate"], one["seed"]) for one in record["results"]}
    wanted = itertools.product(METHODS, options.rates, range(options.seeds))
    with ProcessPoolExecutor(options.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        runs = [pool.submit(run, study, *what) for what in wanted if what not in done]
        for finished in as_completed(runs):
            record["results"].append(finished.result())
            console.print(record["results"][-1])
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(record, indent=2) + "\n")
    console.print(f"{settings}; {record['machine']}")
    console.print(table(record["results"], options.rates, options.seeds, record["before"]))


if __name__ == "__main__":
    main()

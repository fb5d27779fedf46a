"""Which design of the adapter learns most per parameter? Many short trainings on one GPU, as CUDA graphs.

    python benchmarks/designs.py TRAIN.jsonl --designs FILE.json [--steps 200] [--batch 8] [--seeds 2] [--jobs 3]

FILE.json maps a name to {"config": "qtha" or "lora", "options": {...}, "rates": [...]}; the options are those of
`QthaConfig` or `LoraConfig`. Word problems with columns question, equation and answer. A tenth of the file, chosen by
the hash of its text, is the validation set; no other file is read. Data order is the same for all designs, per seed.
The table says the validation loss at every rate. Runs are written to benchmarks/results/designs.json as they finish,
and not run again.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import math
import multiprocessing
import random
import statistics
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, get_peft_model
from rich.console import Console
from rich.table import Table
from timing import machine
from torch import Tensor, nn

from qpeft import QthaConfig
from qpeft.data import Encoded, encode_all, hold_out, load_examples
from qpeft.models import PACKAGE_MODEL, load_model, load_tokenizer

RESULTS = Path(__file__).parent / "results/designs.json"
RESPONSE = "{equation}\n#### {answer}"
CONFIGS: dict[str, type[PeftConfig]] = {"qtha": QthaConfig, "lora": LoraConfig}
TARGETS = ["q_proj", "v_proj"]


@dataclass(frozen=True)
class Study:
    """What all runs share: examples as padded rows of tokens and labels, and the length of training."""

    train: tuple[Tensor, Tensor]
    held_out: tuple[Tensor, Tensor]
    steps: int
    batch: int


@dataclass(frozen=True)
class Run:
    """One training: a design by name, its config, a learning rate and a seed."""

    design: str
    config: str
    options: dict[str, Any]
    rate: float
    seed: int

    @property
    def key(self) -> tuple[str, float, int]:
        return self.design, self.rate, self.seed


_BASE: dict[str, nn.Module] = {}


def base_model() -> nn.Module:
    """The frozen model on the GPU, loaded once a process."""
    if "base" not in _BASE:
        torch.set_float32_matmul_precision("high")
        _BASE["base"] = load_model(PACKAGE_MODEL).cuda()
    return copy.deepcopy(_BASE["base"])


def adapted(run: Run) -> nn.Module:
    """The model with a fresh adapter."""
    torch.manual_seed(run.seed)
    config = CONFIGS[run.config](**({"target_modules": TARGETS} | run.options))
    return get_peft_model(base_model(), config)


def loss_of(model: nn.Module, tokens: Tensor, labels: Tensor) -> Tensor:
    """Mean loss per trained-on token. Rows are padded on the right, where a causal model's tokens do not look."""
    loss: Tensor = model(input_ids=tokens, labels=labels, use_cache=False).loss
    return loss


def train(study: Study, run: Run) -> dict[str, Any]:
    """Train one adapter by replaying one captured step; its validation loss and number of parameters."""
    model = adapted(run).train()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    start = [weight.detach().clone() for weight in weights]
    rate = torch.tensor(0.0, device="cuda")
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.0, capturable=True)
    tokens, labels = (column.cuda() for column in study.train)
    batch_tokens, batch_labels = tokens[: study.batch].clone(), labels[: study.batch].clone()

    def step() -> None:
        optimizer.zero_grad(set_to_none=False)
        loss_of(model, batch_tokens, batch_labels).backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    with torch.no_grad():  # the steps so far were practice, at a learning rate of zero
        for weight, first in zip(weights, start, strict=True):
            weight.copy_(first)
        for state in optimizer.state.values():
            for value in state.values():
                value.zero_()

    order = random.Random(run.seed).sample(range(len(tokens)), study.steps * study.batch)
    warmup = max(1, study.steps // 10)
    for number in range(study.steps):
        rows = torch.tensor(order[number * study.batch : (number + 1) * study.batch], device="cuda")
        batch_tokens.copy_(tokens[rows])
        batch_labels.copy_(labels[rows])
        rate.fill_(run.rate * min((number + 1) / warmup, 0.5 * (1 + math.cos(math.pi * number / study.steps))))
        graph.replay()
    return {
        "design": run.design,
        "rate": run.rate,
        "seed": run.seed,
        "options": run.options,
        "parameters": sum(weight.numel() for weight in weights),
        "loss": validation_loss(model, study),
    }


@torch.no_grad()
def validation_loss(model: nn.Module, study: Study) -> float:
    """Mean loss per trained-on token of all held-out rows."""
    model.eval()
    total = count = 0.0
    for tokens, labels in zip(*(column.split(64) for column in study.held_out), strict=True):
        trained = int((labels[:, 1:] != -100).sum())
        total += trained * loss_of(model, tokens.cuda(), labels.cuda()).item()
        count += trained
    return total / count


def padded(examples: list[Encoded], length: int) -> tuple[Tensor, Tensor]:
    """Tokens and labels as rows of one length; examples that are longer are left out."""
    short = [one for one in examples if len(one.input_ids) <= length]
    tokens = [one.input_ids + [0] * (length - len(one.input_ids)) for one in short]
    labels = [one.labels + [-100] * (length - len(one.labels)) for one in short]
    return torch.tensor(tokens), torch.tensor(labels)


def table(results: list[dict[str, Any]]) -> Table:
    """Designs by their best mean loss over seeds."""
    rows = Table("design", "parameters", "loss at best rate", "rate", "seeds", "loss by rate")
    designs = []
    for name in {one["design"] for one in results}:
        mine = [one for one in results if one["design"] == name]
        by_rate = {
            rate: [one["loss"] for one in mine if one["rate"] == rate] for rate in sorted({one["rate"] for one in mine})
        }
        best = min(by_rate, key=lambda rate: statistics.mean(by_rate[rate]))
        designs.append((statistics.mean(by_rate[best]), name, mine[0]["parameters"], best, by_rate))
    for loss, name, parameters, best, by_rate in sorted(designs, key=lambda one: one[0]):
        edge = " (edge)" if best in (min(by_rate), max(by_rate)) else ""
        each = "  ".join(f"{rate:.0e}: {statistics.mean(losses):.4f}" for rate, losses in by_rate.items())
        seeds = ", ".join(f"{value:.4f}" for value in by_rate[best])
        rows.add_row(name, f"{parameters:,}", f"{loss:.4f}", f"{best:.0e}{edge}", seeds, each)
    return rows


def main() -> None:
    """Run what has not been run yet, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", help="JSONL file with question, equation and answer")
    parser.add_argument("--designs", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=128, help="tokens of a row; longer examples are left out")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=3, help="runs at the same time, each in a process of its own")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    examples = load_examples(options.train, prompt="{question}", response=RESPONSE)
    training, validation = hold_out(examples, len(examples) // 10)
    tokenizer = load_tokenizer(PACKAGE_MODEL)
    rows = [padded(encode_all(tokenizer, part), options.length) for part in (training, validation)]
    study = Study(rows[0], rows[1], options.steps, options.batch)
    settings = {"steps": study.steps, "batch": study.batch, "length": options.length, "response": RESPONSE}
    settings |= {"training_items": len(rows[0][0]), "validation_items": len(rows[1][0])}

    record = json.loads(options.output.read_text()) if options.output.exists() else {}
    if record.get("settings") != settings:
        record = {"machine": machine(), "settings": settings, "results": []}
    done = {(one["design"], one["rate"], one["seed"]) for one in record["results"]}
    designs = json.loads(options.designs.read_text())
    wanted = [
        Run(name, design["config"], design["options"], rate, seed)
        for name, design in designs.items()
        for rate, seed in itertools.product(design["rates"], range(options.seeds))
    ]
    console = Console(width=160, highlight=False)
    with ProcessPoolExecutor(options.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        runs = {pool.submit(train, study, run): run for run in wanted if run.key not in done}
        for finished in as_completed(runs):
            if error := finished.exception():
                console.print(f"{runs[finished].key} failed: {error!r}")
                continue
            record["results"].append(finished.result())
            options.output.write_text(json.dumps(record, indent=1) + "\n")
    console.print(f"{settings}; {record['machine']}")
    console.print(table(record["results"]))


if __name__ == "__main__":
    main()

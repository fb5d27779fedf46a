"""Does the circuit help? QTHA against itself without a circuit, against classical units, and against LoRA.

    python benchmarks/does_it_help.py TRAIN.jsonl [--steps 60] [--batch 8] [--seeds 3] [--items 313]

Word problems with columns question, equation and answer. A tenth of the file, chosen by the hash of its text, is the
validation set; no other file is read. Every method gets the same data in the same order per seed and the same number of
learning rates. The table says mean and range over seeds at the better learning rate of each method, and the paired
difference to QTHA. Finished runs are kept in benchmarks/results/does_it_help.json and not run again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import statistics
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from rich.console import Console
from rich.table import Table
from timing import machine
from torch import Tensor, nn

from qpeft import QthaConfig
from qpeft.adapters.qtha.branch import QthaBranch
from qpeft.data import Encoded, encode_all, hold_out, load_examples
from qpeft.evaluation import held_out_loss
from qpeft.models import PACKAGE_MODEL, load_model, load_tokenizer

TARGETS = ["q_proj", "v_proj"]
RESULTS = Path(__file__).parent / "results/does_it_help.json"
HYBRID_RATES, LORA_RATES = (3e-3, 1e-2), (3e-3, 1e-2)


class TanhUnits(nn.Module):
    """a tanh(b h + c) + d per channel: as many parameters as `ring_crz` of depth 1 has angles."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.ones(rank)), nn.Parameter(torch.ones(rank))
        self.c, self.d = nn.Parameter(torch.zeros(rank)), nn.Parameter(torch.zeros(rank))

    def forward(self, h: Tensor) -> Tensor:
        """One nonlinear unit per channel."""
        return self.a * torch.tanh(self.b * h + self.c) + self.d


METHODS: dict[str, tuple[PeftConfig, Sequence[float]]] = {
    "QTHA": (QthaConfig(target_modules=TARGETS), HYBRID_RATES),
    "no circuit": (QthaConfig(middle="none", target_modules=TARGETS), HYBRID_RATES),
    "frozen circuit": (QthaConfig(middle="frozen_circuit", target_modules=TARGETS), HYBRID_RATES),
    "tanh units": (QthaConfig(target_modules=TARGETS), HYBRID_RATES),
    "LoRA r=8": (LoraConfig(r=8, lora_alpha=16, target_modules=TARGETS), LORA_RATES),
    "LoRA r=2": (LoraConfig(r=2, lora_alpha=4, target_modules=TARGETS), LORA_RATES),
}


def adapted(name: str, seed: int) -> PeftModel:
    """The model with a fresh adapter."""
    torch.manual_seed(seed)
    model = get_peft_model(load_model(PACKAGE_MODEL), METHODS[name][0])
    if name == "tanh units":
        for module in model.modules():
            if isinstance(module, QthaBranch):
                module.middle = TanhUnits(module.rank)
    return model


def run(
    name: str, rate: float, seed: int, train: list[Encoded], held_out: list[Encoded], steps: int, batch: int
) -> dict:
    """Train one adapter; its validation loss and number of parameters."""
    model = adapted(name, seed).train()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.0)
    warmup = max(1, steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * step / steps)))
    )
    order = random.Random(seed).sample(range(len(train)), steps * batch)
    for step in range(steps):
        chosen = [train[index] for index in order[step * batch : (step + 1) * batch]]
        pad_loss(model, chosen).backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    loss = held_out_loss(model, held_out).loss
    return {"method": name, "rate": rate, "seed": seed, "loss": loss, "parameters": sum(w.numel() for w in weights)}


def pad_loss(model: PeftModel, chosen: list[Encoded]) -> Tensor:
    """Mean loss per trained-on token of a padded batch."""
    longest = max(len(one.input_ids) for one in chosen)
    rows = [(one, longest - len(one.input_ids)) for one in chosen]
    loss: Tensor = model(
        input_ids=torch.tensor([one.input_ids + [0] * missing for one, missing in rows]),
        attention_mask=torch.tensor([[1] * len(one.input_ids) + [0] * missing for one, missing in rows]),
        labels=torch.tensor([one.labels + [-100] * missing for one, missing in rows]),
    ).loss
    return loss


def table(results: list[dict], seeds: int, before: float) -> Table:
    """Best learning rate per method, by the mean over seeds."""
    rows = Table("method", "parameters", "learning rate", "validation loss", "range over seeds", "minus QTHA, per seed")
    rows.add_row("base model", "0", "-", f"{before:.4f}", "", "")
    reference: list[float] = []
    for name, (_, rates) in METHODS.items():
        by_rate = {
            rate: [
                r for seed in range(seeds) for r in results if (r["method"], r["rate"], r["seed"]) == (name, rate, seed)
            ]
            for rate in rates
        }
        rate, best = min(by_rate.items(), key=lambda item: statistics.mean(r["loss"] for r in item[1]))
        losses = [r["loss"] for r in best]
        reference = reference or losses
        edge = " (edge of grid)" if rate in (min(rates), max(rates)) else ""
        differences = ", ".join(f"{a - b:+.3f}" for a, b in zip(losses, reference, strict=True))
        rows.add_row(
            name,
            f"{best[0]['parameters']:,}",
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
    parser.add_argument("--items", type=int, help="use only the first so many of the validation items")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    console = Console(width=140, highlight=False)
    tokenizer = load_tokenizer(PACKAGE_MODEL)
    examples = load_examples(options.train, prompt="{question}", response="{equation} = {answer}")
    training, validation = hold_out(examples, len(examples) // 10)
    train, held_out = encode_all(tokenizer, training), encode_all(tokenizer, validation[: options.items])
    settings = {"steps": options.steps, "batch": options.batch, "validation_items": len(held_out)}

    stored = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results = stored.get("results", []) if stored.get("settings") == settings else []
    if "before" not in stored or stored.get("settings") != settings:
        stored["before"] = held_out_loss(load_model(PACKAGE_MODEL), held_out).loss
    for seed, (name, (_, rates)) in itertools.product(range(options.seeds), METHODS.items()):
        for rate in rates:
            if any((r["method"], r["rate"], r["seed"]) == (name, rate, seed) for r in results):
                continue
            results.append(run(name, rate, seed, train, held_out, options.steps, options.batch))
            console.print(results[-1])
            RESULTS.parent.mkdir(exist_ok=True)
            record = {"machine": machine(), "settings": settings, "before": stored["before"], "results": results}
            RESULTS.write_text(json.dumps(record, indent=2) + "\n")
    console.print(f"{settings}; {machine()}")
    console.print(table(results, options.seeds, stored["before"]))


if __name__ == "__main__":
    main()

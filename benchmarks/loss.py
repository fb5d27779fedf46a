"""The training loss of SmolLM2-135M: in blocks by the model's own forward pass, from all logits, by TRL's fused head.

    python benchmarks/loss.py [--tokens 2048] [--repeats 5] [--labelled 0.5]

Forward and backward pass of one batch in float32 with LoRA of rank 8 on q_proj and v_proj, dropout off: CPU time of one
thread, in turns; then the peak memory of a process that does nothing else, each in a process of its own.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from rich.console import Console
from rich.table import Table
from timing import interleave, machine, ratio, save
from trl.trainer.utils import add_fused_lm_head

from qpeft.evaluation.loss import CausalLoss
from qpeft.models import PACKAGE_MODEL, load_model

LENGTH = 128
STATUS = Path("/proc/self/status")  # of Linux
WAYS = ("in blocks", "all logits", "TRL's fused head")


def step(way: str, tokens: int, labelled: float) -> Callable[[], float]:
    """The loss of one batch, and its gradient."""
    torch.manual_seed(0)
    model = get_peft_model(load_model(PACKAGE_MODEL), LoraConfig(r=8, target_modules=["q_proj", "v_proj"])).train()
    input_ids = torch.randint(0, 49152, (tokens // LENGTH, LENGTH))
    labels = input_ids.clone()
    labels[:, : round(LENGTH * (1 - labelled))] = -100
    inputs = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}
    in_blocks = CausalLoss(model) if way == WAYS[0] else None
    if way == WAYS[2]:
        add_fused_lm_head(model.get_base_model(), outputs=("log_probs", "entropy", "is_top1"))

    def run() -> float:
        if in_blocks is not None:
            parts = in_blocks(model, inputs, labels)
            loss = parts.total / parts.losses.numel()
        elif way == WAYS[1]:
            loss = model(**inputs, labels=labels, use_cache=False).loss
        else:
            outputs = model(**inputs, labels=labels, use_cache=False, fused_lm_head=True)
            loss = -outputs.log_probs.sum() / outputs.label_mask.sum()
        loss.backward()
        model.zero_grad()
        return loss.item()

    return run


def main() -> None:
    """Print the table and write benchmarks/results/loss.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--labelled", type=float, default=0.5, help="share of the tokens that are trained on")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory-of", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory_of:
        run = step(options.memory_of, options.tokens, options.labelled)
        Path("/proc/self/clear_refs").write_text("5")  # the peak from now on: loading the model takes more than a step
        run()
        print(next(int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith("VmHWM")) / 1e6)
        return
    steps = {way: step(way, options.tokens, options.labelled) for way in WAYS}
    losses = {way: run() for way, run in steps.items()}
    seconds = interleave(dict(steps), repeats=options.repeats, warmup=1, clock=time.process_time)
    again = [sys.executable, __file__, "--tokens", str(options.tokens), "--labelled", str(options.labelled)]
    table = Table("loss", "value", "median CPU seconds", "times TRL's", "peak memory, GB")
    rows = []
    for way, values in seconds.items():
        peak = float(subprocess.run([*again, "--memory-of", way], check=True, capture_output=True, text=True).stdout)
        times = ratio(values, seconds[WAYS[2]])
        rows.append({"way": way, "loss": losses[way], "seconds": statistics.median(values), "ratio": times, "GB": peak})
        table.add_row(way, f"{losses[way]:.6f}", f"{rows[-1]['seconds']:.3f}", f"{times:.3f}", f"{peak:.2f}")
    console = Console(width=120)
    console.print(f"{options.tokens} tokens, {options.labelled:.0%} of them labelled, one thread; {machine()}")
    console.print(table)
    save("loss", {"tokens": options.tokens, "labelled": options.labelled, "rows": rows})


if __name__ == "__main__":
    main()

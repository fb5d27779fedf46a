"""A whole training step of SmolLM2-135M: QTHA, its ansätze, quantum-weighted adapters and LoRA in turn.

    python benchmarks/step.py [--tokens 2048] [--repeats 5] [--threads 1]

Forward, backward and AdamW update of one batch in float32: CPU time of one thread; wall time of several, since waiting
for each other counts, and on a GPU. Medians, and the ratio to LoRA of rank 8 on the same layers, round by round: q_proj
and v_proj, or all linear ones where the name says so.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from peft import LoraConfig, PeftConfig, get_peft_model
from rich.console import Console
from rich.table import Table
from timing import gpu_clock, interleave, machine, ratio, save

from qpeft import QthaConfig, QuantumWeightedConfig
from qpeft.models import PACKAGE_MODEL, default_device, load_model

LENGTH = 128
TARGETS = ["q_proj", "v_proj"]
METHODS: dict[str, PeftConfig] = {
    "LoRA r=8": LoraConfig(r=8, target_modules=TARGETS),
    "QTHA ring_crz": QthaConfig(target_modules=TARGETS),
    "QTHA ring_cz": QthaConfig(ansatz="ring_cz", target_modules=TARGETS),
    "QTHA no circuit": QthaConfig(bottleneck="none", target_modules=TARGETS),
    "quantum-weighted": QuantumWeightedConfig(target_modules=TARGETS, init_seed=0),
    "LoRA r=8, all linear": LoraConfig(r=8, target_modules="all-linear"),
    "quantum-weighted, all linear": QuantumWeightedConfig(target_modules="all-linear", init_seed=0),
}


def step(config: PeftConfig, tokens: int) -> Callable[[], None]:
    """One training step on random tokens, in sequences of 128."""
    torch.manual_seed(0)
    model = get_peft_model(load_model(PACKAGE_MODEL).to(default_device()), config).train()
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=1e-3)
    input_ids = torch.randint(0, 49152, (tokens // LENGTH, LENGTH), device=model.device)

    def run() -> None:
        model(input_ids=input_ids, labels=input_ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def main() -> None:
    """Print the table and write benchmarks/results/step.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    contenders = {name: step(config, options.tokens) for name, config in METHODS.items()}
    on_gpu = default_device().type == "cuda"
    on_one_thread = options.threads == 1 and not on_gpu
    clock = gpu_clock if on_gpu else time.process_time if on_one_thread else time.perf_counter
    seconds = interleave(contenders, repeats=options.repeats, warmup=3, clock=clock)
    table = Table("method", "median CPU seconds" if on_one_thread else "median seconds", "times LoRA")
    results = []
    for name, values in seconds.items():
        times = ratio(values, seconds["LoRA r=8" + ", all linear" * name.endswith("all linear")])
        results.append({"method": name, "seconds": statistics.median(values), "ratio_to_lora": times})
        table.add_row(name, f"{statistics.median(values):.3f}", f"{times:.3f}")
    console = Console(width=120)
    console.print(f"{options.tokens} tokens a step in sequences of {LENGTH}, {options.threads} thread(s); {machine()}")
    console.print(table)
    name = "step_gpu" if on_gpu else "step" if on_one_thread else "step_threads"
    save(name, {"tokens": options.tokens, "threads": options.threads, "rows": results})


if __name__ == "__main__":
    main()

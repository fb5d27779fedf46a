"""Operations that an adapted layer adds to a training step: what a GPU's step waits for where batches are small.

    python benchmarks/operations.py [--width 1536]

Counts of torch's profiler for one forward and backward pass of one linear layer, less those of the layer by itself.
Computing operations are those that start a kernel on a GPU; the others make views, memory and records. The circuit is
counted as the CPU evaluates it. Microseconds are CPU time for one token, one thread, median.
"""

from __future__ import annotations

import argparse
import time

import torch
from peft import LoraConfig, PeftConfig, get_peft_model
from rich.console import Console
from rich.table import Table
from timing import interleave, machine, save
from torch import nn
from torch.profiler import ProfilerActivity, profile

from qpeft import QthaConfig

TARGETS = ["0"]
METHODS: dict[str, PeftConfig] = {
    "LoRA r=8": LoraConfig(r=8, target_modules=TARGETS),
    "QTHA no circuit": QthaConfig(bottleneck="none", target_modules=TARGETS),
    "QTHA": QthaConfig(target_modules=TARGETS),
}
COMPUTING = ("mm", "addmm", "bmm", "add", "add_", "sub", "mul", "div", "neg", "tanh", "sum", "aminmax")
COMPUTING += ("copy_", "cat", "stack", "fill_", "zero_", "constant_pad_nd")


class Step:
    """Forward and backward pass of a layer of this width for one token, adapted or not."""

    def __init__(self, width: int, config: PeftConfig | None) -> None:
        torch.manual_seed(0)
        model: nn.Module = nn.Sequential(nn.Linear(width, width, bias=False)).requires_grad_(False)
        self.model = get_peft_model(model, config) if config else model
        self.x = torch.randn(1, width, requires_grad=True)

    def __call__(self) -> None:
        self.model(self.x).sum().backward()

    def operations(self) -> list[str]:
        """Names of all operations, once it has been called before."""
        self()
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            self()
        return [event.name.removeprefix("aten::") for event in seen.events() if event.name.startswith("aten::")]


def main() -> None:
    """Print the table and write benchmarks/results/operations.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=1536)
    width = parser.parse_args().width
    torch.set_num_threads(1)
    base, steps = Step(width, None), {name: Step(width, config) for name, config in METHODS.items()}
    counted = {name: step.operations() for name, step in steps.items()}
    alone = base.operations()
    seconds = interleave({"alone": base, **steps}, repeats=200, warmup=20, clock=time.process_time)
    table, rows = Table("method", "operations", "computing", "us"), []
    for name, found in counted.items():
        row = {
            "method": name,
            "operations": len(found) - len(alone),
            "computing": sum(found.count(one) - alone.count(one) for one in COMPUTING),
            "microseconds": 1e6 * (sorted(seconds[name])[100] - sorted(seconds["alone"])[100]),
        }
        rows.append(row)
        table.add_row(name, str(row["operations"]), str(row["computing"]), f"{row['microseconds']:.0f}")
    Console(width=100).print(f"one layer of width {width}; {machine()}", table)
    save("operations", {"width": width, "rows": rows})


if __name__ == "__main__":
    main()

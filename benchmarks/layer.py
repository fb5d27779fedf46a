"""Adapter branches alone: forward and backward of QTHA, LoRA, DoRA and LoKr around a base layer that costs nothing.

    python benchmarks/layer.py [--tokens 2048] [--repeats 15]

One thread, CPU time, methods in turn; a row per width with medians and the ratio to LoRA of rank 8.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch
from peft import LoKrConfig, LoraConfig, PeftConfig, get_peft_model
from rich.console import Console
from rich.table import Table
from timing import interleave, machine, ratio, save
from torch import Tensor, nn

from qpeft import QthaConfig

WIDTHS = (576, 1024, 2048, 4096)
METHODS: dict[str, PeftConfig] = {
    "LoRA r=8": LoraConfig(r=8, target_modules=["layer"]),
    "QTHA ring_crz": QthaConfig(target_modules=["layer"]),
    "QTHA ring_cz": QthaConfig(ansatz="ring_cz", target_modules=["layer"]),
    "QTHA paper r=10": QthaConfig.paper(target_modules=["layer"]),
    "DoRA r=8": LoraConfig(r=8, use_dora=True, target_modules=["layer"]),
    "LoKr r=8": LoKrConfig(r=8, target_modules=["layer"]),
}


class Stub(nn.Linear):
    """A linear layer that skips its product; the adapter beside it is all that takes time."""

    def forward(self, x: Tensor) -> Tensor:
        """Zeros of the right shape, without memory of their own."""
        return x.new_zeros(()).expand(*x.shape[:-1], self.out_features)


def branch(config: PeftConfig, width: int, tokens: int) -> Callable[[], None]:
    """One forward and backward pass through an adapted stub, with an input that needs a gradient."""
    torch.manual_seed(0)
    model = get_peft_model(nn.ModuleDict({"layer": Stub(width, width, bias=False)}), config)
    layer = model.base_model.model["layer"]
    x = torch.randn(tokens, width, requires_grad=True)
    grad = torch.randn(tokens, width)

    def run() -> None:
        x.grad = None
        layer(x).backward(grad)

    return run


def main() -> None:
    """Print the table and write benchmarks/results/layer.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = Table("width", *METHODS)
    results = []
    for width in WIDTHS:
        contenders = {name: branch(config, width, options.tokens) for name, config in METHODS.items()}
        seconds = interleave(contenders, repeats=options.repeats)
        cells = []
        for name in METHODS:
            times = ratio(seconds[name], seconds["LoRA r=8"])
            median = statistics.median(seconds[name])
            cells.append(f"{1e3 * median:.1f} ms ({times:.2f}x)")
            results.append({"width": width, "method": name, "seconds": median, "ratio_to_lora": times})
        table.add_row(str(width), *cells)
    console = Console(width=160)
    console.print(f"{options.tokens} tokens, forward + backward, one thread, CPU time; {machine()}")
    console.print(table)
    save("layer", {"tokens": options.tokens, "rows": results})


if __name__ == "__main__":
    main()

"""Every method of ours on SmolLM2-135M beside LoRA: parameters, error of merging, seconds per training step.

    python benchmarks/methods.py [--tokens 512] [--repeats 3] [--threads 1]

q_proj and v_proj are adapted with each method's default options. The merge error is the largest difference of logits
between the adapter beside the weights and merged into them, after five steps of AdamW at 1e-2 on random tokens; the
largest change that the adapter makes to a logit stands beside it. Steps are forward, backward and AdamW on one batch in
float32, the methods in turn: CPU time of one thread, medians, and ratios to LoRA of rank 8.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from rich.console import Console
from rich.table import Table
from step import step
from timing import interleave, machine, ratio, save

from qpeft.adapters import ADAPTERS
from qpeft.errors import NotMergeableError
from qpeft.models import PACKAGE_MODEL, load_model

TARGETS = ["q_proj", "v_proj"]
LORA = "lora, r=8"


def methods() -> dict[str, PeftConfig]:
    """LoRA and all of ours, by name."""
    ours = {name: config_class(target_modules=TARGETS) for name, (config_class, _) in ADAPTERS.items()}
    return {LORA: LoraConfig(r=8, lora_alpha=16, target_modules=TARGETS), **ours}


def merging(config: PeftConfig) -> dict[str, float | int | None]:
    """Trainable parameters, and what an adapter and its merging change in the logits; None where it is refused."""
    torch.manual_seed(0)
    model = get_peft_model(load_model(PACKAGE_MODEL), config)
    tokens = torch.randint(0, 49152, (2, 64))
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    before = _logits(model, tokens)
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    model.train()
    for _ in range(5):
        model(tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    beside = _logits(model, tokens)
    return {
        "parameters": sum(weight.numel() for weight in trained),
        "change": (beside - before).abs().max().item(),
        "merge_error": _merged_difference(model, tokens, beside),
    }


@torch.no_grad()
def _logits(model: PeftModel, tokens: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = model.eval()(tokens).logits
    return logits


def _merged_difference(model: PeftModel, tokens: torch.Tensor, beside: torch.Tensor) -> float | None:
    try:
        model.merge_adapter()
    except NotMergeableError:
        return None
    return (_logits(model, tokens) - beside).abs().max().item()


def main() -> None:
    """Print the table and write benchmarks/results/methods.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = {name: merging(config) for name, config in methods().items()}
    contenders = {name: step(config, options.tokens) for name, config in methods().items()}
    clock = time.process_time if options.threads == 1 else time.perf_counter
    seconds = interleave(contenders, repeats=options.repeats, warmup=2, clock=clock)
    table = Table("method", "trainable", "of LoRA", "merge error", "change of logits", "s/step", "times LoRA")
    rows = []
    for name, values in seconds.items():
        row = found[name] | {
            "method": name,
            "seconds": statistics.median(values),
            "ratio_to_lora": ratio(values, seconds[LORA]),
        }
        rows.append(row)
        error = row["merge_error"]
        table.add_row(
            name,
            f"{row['parameters']:,}",
            f"{row['parameters'] / found[LORA]['parameters']:.1%}",
            "no matrix" if error is None else f"{error:.1e}",
            f"{row['change']:.2g}",
            f"{row['seconds']:.3f}",
            f"{row['ratio_to_lora']:.3f}",
        )
    console = Console(width=120)
    console.print(f"{options.tokens} tokens a step, {options.threads} thread(s); {machine()}")
    console.print(table)
    save("methods", {"tokens": options.tokens, "threads": options.threads, "rows": rows})


if __name__ == "__main__":
    main()

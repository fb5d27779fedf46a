"""A billion parameters: training steps of a 1.5B model's exact shape, QTHA and LoRA in turn, with their memory.

    python benchmarks/scale.py [--tokens 128] [--batch 1] [--steps 3] [--rounds 2] [--threads 2] [--checkpointing]

The shape is Qwen2.5-1.5B's (and DeepSeek-R1-Distill-Qwen-1.5B's) with random weights, so nothing is downloaded; q_proj
and v_proj are adapted. float32 on a CPU, bfloat16 with float32 adapters on a GPU. Every round runs each method in a
process of its own, one after the other: seconds per step are medians of all steps but each process's first, and memory
is the peak of the process, or on a GPU what torch had reserved.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from rich.console import Console
from rich.table import Table
from timing import machine, save
from transformers import AutoModelForCausalLM, Qwen2Config

from qpeft import QthaConfig
from qpeft.models import default_device

TARGETS = ["q_proj", "v_proj"]
METHODS: dict[str, PeftConfig] = {
    "LoRA r=8": LoraConfig(r=8, lora_alpha=16, target_modules=TARGETS),
    "QTHA": QthaConfig(target_modules=TARGETS),
    "QTHA no circuit": QthaConfig(middle="none", target_modules=TARGETS),
}
SHAPE = Qwen2Config(
    hidden_size=1536,
    intermediate_size=8960,
    num_hidden_layers=28,
    num_attention_heads=12,
    num_key_value_heads=2,
    vocab_size=151936,
    tie_word_embeddings=True,
)


def adapted(method: str, *, checkpointing: bool) -> PeftModel:
    """The model with random weights and a fresh adapter, where it will be trained."""
    torch.manual_seed(0)
    dtype = torch.bfloat16 if default_device().type == "cuda" else torch.float32
    with torch.device(default_device()):
        model = AutoModelForCausalLM.from_config(SHAPE, dtype=dtype)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return get_peft_model(model, METHODS[method]).train()


def measure(method: str, options: argparse.Namespace) -> dict[str, object]:
    """Seconds of every step, peak memory in GB and the number of trainable parameters, of this process."""
    torch.set_num_threads(options.threads)
    model = adapted(method, checkpointing=options.checkpointing)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-3)
    tokens = torch.randint(0, SHAPE.vocab_size, (options.batch, options.tokens), device=model.device)
    seconds, losses = [], []
    for _ in range(options.steps):
        start = time.perf_counter()
        loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())  # waits for the GPU, too
        seconds.append(time.perf_counter() - start)
    on_gpu = model.device.type == "cuda"
    peak = torch.cuda.max_memory_reserved() if on_gpu else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "seconds": seconds,
        "losses": losses,
        "peak_gb": peak / 1e9,
        "parameters": sum(weight.numel() for weight in weights),
    }


def main() -> None:
    """Print the table and write benchmarks/results/scale.json, or scale_gpu.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=128, help="of a sequence")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--checkpointing", action="store_true", help="recompute activations in the backward pass")
    parser.add_argument("--worker", choices=METHODS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(measure(options.worker, options)))
        return
    found: dict[str, list[dict]] = {method: [] for method in METHODS}
    for number in range(options.rounds):
        for method, runs in found.items():
            command = [sys.executable, *sys.argv, "--worker", method]
            finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            runs.append(json.loads(finished.stdout.splitlines()[-1]))
            print(f"round {number + 1}, {method}: {runs[-1]}", flush=True)
    rows = [_row(method, runs, found["LoRA r=8"], options) for method, runs in found.items()]
    table = Table("method", "trainable", "s/step", "tokens/s", "times LoRA", "peak GB", "loss, first to last")
    for row in rows:
        table.add_row(
            row["method"],
            f"{row['parameters']:,}",
            f"{row['seconds']:.3f}",
            f"{row['tokens_per_second']:.0f}",
            f"{row['ratio_to_lora']:.3f}",
            f"{row['peak_gb']:.2f}",
            f"{row['losses'][0]:.2f} to {row['losses'][-1]:.2f}",
        )
    settings = {name: value for name, value in vars(options).items() if name != "worker"}
    console = Console(width=120)
    console.print(f"1.5B parameters, {settings}; {machine()}")
    console.print(table)
    save("scale_gpu" if default_device().type == "cuda" else "scale", {"settings": settings, "rows": rows})


def _row(method: str, runs: list[dict], lora: list[dict], options: argparse.Namespace) -> dict:
    def later(run: dict) -> list[float]:
        return run["seconds"][1:] or run["seconds"]

    seconds = statistics.median(second for run in runs for second in later(run))
    ratios = [statistics.median(later(a)) / statistics.median(later(b)) for a, b in zip(runs, lora, strict=True)]
    return {
        "method": method,
        "parameters": runs[0]["parameters"],
        "seconds": seconds,
        "tokens_per_second": options.batch * options.tokens / seconds,
        "ratio_to_lora": statistics.median(ratios),
        "peak_gb": max(run["peak_gb"] for run in runs),
        "losses": runs[0]["losses"],
    }


if __name__ == "__main__":
    main()

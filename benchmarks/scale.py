"""A billion parameters: training steps of a 1.5B model's exact shape, each method in turn, with their memory.

    python benchmarks/scale.py [--tokens 128] [--batch 1] [--steps 3] [--rounds 2] [--threads 2] [--checkpointing]
    python benchmarks/scale.py --shape smollm2-135m --processes 2 --threads 1      # DDP beside one process

The shape is Qwen2.5-1.5B's or SmolLM2-135M's. Weights are random and cheap, one
block of numbers over and over, so nothing is downloaded or waited for; q_proj and v_proj are adapted, or
all linear layers by `--targets all-linear`. The circuit of the quantum-weighted adapter runs on a sampling device, and
what is sent there is counted. float32 on a CPU,
bfloat16 with float32 adapters on a GPU. Every round runs each method in a process of its own, one after the other, or
in as many as DDP is given, each with a batch of its own: seconds per step are medians of all steps but each process's
first, CPU time for one thread of one process and wall time otherwise, since waiting counts then; memory is the peak of
the (first) process, or on a GPU what torch had reserved.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import torch
from accelerate import PartialState, init_empty_weights
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from rich.console import Console
from rich.table import Table
from timing import machine, save
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, PreTrainedModel, Qwen2Config

from qpeft import QthaConfig, QuantumWeightedConfig, set_quantum_device
from qpeft.circuits import Circuit
from qpeft.devices import LocalDevice
from qpeft.devices.protocol import AbstractDevice, CallKey, Runner, run_now
from qpeft.models import default_device

ON_A_DEVICE = "quantum-weighted on a device"
METHODS: dict[str, Callable[[list[str] | str], PeftConfig]] = {
    "LoRA r=8": lambda targets: LoraConfig(r=8, lora_alpha=16, target_modules=targets),
    "QTHA": lambda targets: QthaConfig(target_modules=targets),
    "QTHA no circuit": lambda targets: QthaConfig(bottleneck="none", target_modules=targets),
    ON_A_DEVICE: lambda targets: QuantumWeightedConfig(target_modules=targets, share="model", init_seed=0),
}
SHAPES: dict[str, PretrainedConfig] = {
    "qwen2.5-1.5b": Qwen2Config(
        hidden_size=1536,
        intermediate_size=8960,
        num_hidden_layers=28,
        num_attention_heads=12,
        num_key_value_heads=2,
        vocab_size=151936,
        tie_word_embeddings=True,
    ),
    "smollm2-135m": LlamaConfig(
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        vocab_size=49152,
        tie_word_embeddings=True,
    ),
}
BLOCK = 65_521
"""Random numbers that all weights repeat; prime, so that no two rows of a matrix begin alike."""


def random_model(shape: PretrainedConfig) -> PreTrainedModel:
    """A causal language model of this shape where it will be trained, with cheap random weights."""
    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(shape)
    device = default_device()
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    block = 0.02 * torch.randn(BLOCK, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            full = torch.ones(weight.shape, device=device, dtype=dtype)
            if weight.ndim > 1:
                whole, rest = divmod(weight.numel(), BLOCK)
                full.view(-1)[: whole * BLOCK].view(whole, BLOCK).copy_(block)
                full.view(-1)[whole * BLOCK :].copy_(block[:rest])
            elif name == "bias":
                full.zero_()
            setattr(module, name, torch.nn.Parameter(full))
    model.tie_weights()
    return model.to(device)  # buffers


def adapted(method: str, options: argparse.Namespace) -> PeftModel:
    """The model with a fresh adapter."""
    model = random_model(SHAPES[options.shape])
    if options.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    torch.manual_seed(0)
    targets = options.targets if options.targets == "all-linear" else options.targets.split(",")
    return get_peft_model(model, METHODS[method](targets)).train()


def measure(method: str, options: argparse.Namespace) -> dict[str, object]:
    """Seconds of every step, peak memory in GB and the number of trainable parameters, of this process."""
    torch.set_num_threads(options.threads)
    state, shape = PartialState(cpu=not torch.cuda.is_available()), SHAPES[options.shape]
    model = adapted(method, options)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    trained = DistributedDataParallel(model) if state.num_processes > 1 else model
    optimizer = torch.optim.AdamW(weights, lr=1e-3)
    sent: list[int] = []
    if method == ON_A_DEVICE:
        evaluator = set_quantum_device(model, LocalDevice(seed=0), gradient="parameter-shift", runner=counting(sent))
        assert evaluator is not None
    generator = torch.Generator().manual_seed(state.process_index)
    tokens = torch.randint(0, shape.vocab_size, (options.batch, options.tokens), generator=generator).to(model.device)
    on_gpu = model.device.type == "cuda"
    clock = time.process_time if options.threads == state.num_processes == 1 and not on_gpu else time.perf_counter
    seconds, losses = [], []
    for number in range(options.steps):
        start = clock()
        if method == ON_A_DEVICE:
            evaluator.begin_step(number)
        loss = trained(input_ids=tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())  # waits for the GPU, too
        seconds.append(clock() - start)
    peak = torch.cuda.max_memory_reserved() if on_gpu else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "seconds": seconds,
        "losses": losses,
        "peak_gb": peak / 1e9,
        "parameters": sum(weight.numel() for weight in weights),
        "base_parameters": sum(weight.numel() for weight in model.parameters() if not weight.requires_grad),
        "circuits": sum(sent),
    }


def counting(sent: list[int]) -> Runner:
    """A runner that notes how many circuits every call has."""

    def run(device: AbstractDevice, circuits: Sequence[Circuit], shots: int | None, *, key: CallKey) -> list:
        sent.append(len(circuits))
        return run_now(device, circuits, shots, key=key)

    return run


def run_worker(method: str, processes: int) -> dict:
    """`measure` in a new process, or in several by DDP, of which the first reports."""
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes)] if processes > 1 else []
    command = [sys.executable, *launcher, *sys.argv, "--worker", method]
    finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(finished.stdout.splitlines()[-1])


def main() -> None:
    """Print the table and write benchmarks/results/scale.json, or scale_gpu.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="qwen2.5-1.5b")
    parser.add_argument("--processes", type=int, default=1, help="more than one are trained by DDP, beside one")
    parser.add_argument("--tokens", type=int, default=128, help="of a sequence")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--checkpointing", action="store_true", help="recompute activations in the backward pass")
    parser.add_argument("--targets", default="q_proj,v_proj", help="names of linear layers, or all-linear")
    parser.add_argument("--worker", choices=METHODS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        result = measure(options.worker, options)
        if PartialState().is_main_process:
            print(json.dumps(result))
        return
    numbers = sorted({1, options.processes})
    found: dict[tuple[int, str], list[dict]] = {(number, method): [] for number in numbers for method in METHODS}
    for round_number in range(options.rounds):
        for (number, method), runs in found.items():
            runs.append(run_worker(method, number))
            print(f"round {round_number + 1}, {method}, {number} processes: {runs[-1]}", flush=True)
    rows = [_row(number, method, runs, found[number, "LoRA r=8"], options) for (number, method), runs in found.items()]
    table = Table(
        "processes",
        "method",
        "trainable",
        "s/step",
        "tokens/s",
        "times LoRA",
        "peak GB",
        "loss, first to last",
        "circuits",
    )
    for row in rows:
        table.add_row(
            str(row["processes"]),
            row["method"],
            f"{row['parameters']:,}",
            f"{row['seconds']:.3f}",
            f"{row['tokens_per_second']:.0f}",
            f"{row['ratio_to_lora']:.3f}",
            f"{row['peak_gb']:.2f}",
            f"{row['losses'][0]:.2f} to {row['losses'][-1]:.2f}",
            str(row["circuits"]),
        )
    settings = {name: value for name, value in vars(options).items() if name != "worker"}
    console = Console(width=120)
    console.print(f"{settings}; {machine()}")
    console.print(table)
    name = "scale" + "_ddp" * (options.processes > 1) + "_gpu" * (default_device().type == "cuda")
    save(name, {"settings": settings, "rows": rows})


def _row(processes: int, method: str, runs: list[dict], lora: list[dict], options: argparse.Namespace) -> dict:
    def later(run: dict) -> list[float]:
        return run["seconds"][1:] or run["seconds"]

    seconds = statistics.median(second for run in runs for second in later(run))
    ratios = [statistics.median(later(a)) / statistics.median(later(b)) for a, b in zip(runs, lora, strict=True)]
    return {
        "processes": processes,
        "method": method,
        "parameters": runs[0]["parameters"],
        "seconds": seconds,
        "tokens_per_second": processes * options.batch * options.tokens / seconds,
        "ratio_to_lora": statistics.median(ratios),
        "peak_gb": max(run["peak_gb"] for run in runs),
        "losses": runs[0]["losses"],
        "circuits": runs[0]["circuits"],
    }


if __name__ == "__main__":
    main()

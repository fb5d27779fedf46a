"""Peak memory of a training run: `qpeft train` with LoRA and with QTHA, against TRL's SFTTrainer with LoRA.

    python benchmarks/memory.py [--batch 4] [--tokens 256] [--steps 3] [--threads 1]

The same SmolLM2-135M in float32, the same batches of full-length examples, AdamW, no gradient checkpointing, each in a
process of its own. On a CPU it is the peak resident size of the process, Python and its packages included; on a GPU
what torch had reserved. The exit status is 1 if a run of ours takes more than 5 % above TRL's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import LoraConfig
from rich.console import Console
from rich.table import Table
from timing import machine, save
from trl import SFTConfig, SFTTrainer

from qpeft.data import Encoded, to_dataset
from qpeft.models import PACKAGE_MODEL, default_device, load_model, load_tokenizer
from qpeft.training import train
from qpeft.training.config import parse_recipe
from qpeft.training.memory import peak_memory

TARGETS = ["q_proj", "v_proj"]
METHODS = {
    "TRL, LoRA r=8": None,
    "qpeft, LoRA r=8": {"type": "lora", "r": 8, "lora_alpha": 16},
    "qpeft, QTHA": {"type": "qtha"},
}
LIMIT = 1.05


def rows(options: argparse.Namespace) -> list[dict[str, str]]:
    """Questions and answers of more tokens than are kept of one."""
    sentence = "The quick brown fox jumps over the lazy dog while seven wizards count their silver coins. "
    number = options.batch * options.steps
    return [{"prompt": f"Question {one}?", "completion": sentence * (options.tokens // 8)} for one in range(number)]


def run_ours(adapter: dict[str, object], folder: Path, options: argparse.Namespace) -> None:
    """`qpeft train` of a recipe that does nothing besides."""
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows(options)))
    recipe = {
        "model": {"name": PACKAGE_MODEL},
        "data": {
            "train": str(data),
            "prompt": "{prompt}",
            "response": "{completion}",
            "max_length": options.tokens,
        },
        "adapter": {**adapter, "target_modules": TARGETS},
        "training": {
            "steps": options.steps,
            "batch_size": options.batch,
            "checkpoint_every": None,
            "learning_rate": 1e-3,
            "report_to": "none",
        },
        "output": {"folder": str(folder / "run")},
    }
    train(parse_recipe(recipe, source="benchmark"))


def run_theirs(folder: Path, options: argparse.Namespace) -> None:
    """SFTTrainer as its users call it, on token ids of the same length."""
    tokenizer = load_tokenizer(PACKAGE_MODEL)
    texts = [row["prompt"] + row["completion"] for row in rows(options)]
    tokens = [tokenizer(text)["input_ids"][: options.tokens] for text in texts]
    encoded: Sequence[Encoded] = [Encoded(ids, list(ids), 0, (), "") for ids in tokens]
    arguments = SFTConfig(
        output_dir=str(folder),
        max_steps=options.steps,
        per_device_train_batch_size=options.batch,
        learning_rate=1e-3,
        gradient_checkpointing=False,
        bf16=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
    )
    SFTTrainer(
        model=load_model(PACKAGE_MODEL),
        args=arguments,
        train_dataset=to_dataset(encoded),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=8, lora_alpha=16, target_modules=TARGETS),
    ).train()


def measure(method: str, options: argparse.Namespace) -> int:
    """Peak memory of this process after a run, bytes."""
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as place:
        if (adapter := METHODS[method]) is None:
            run_theirs(Path(place), options)
        else:
            run_ours(adapter, Path(place), options)
    return peak_memory(default_device())


def main() -> None:
    """Print the table, write benchmarks/results/memory.json or memory_gpu.json, and exit with 1 above the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=256, help="of an example")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--worker", choices=METHODS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(measure(options.worker, options))
        return
    peaks = {}
    for method in METHODS:
        finished = subprocess.run(
            [sys.executable, *sys.argv, "--worker", method], check=True, stdout=subprocess.PIPE, text=True
        )
        peaks[method] = int(finished.stdout.splitlines()[-1])
        print(f"{method}: {peaks[method] / 1e9:.3f} GB", flush=True)
    theirs = next(iter(peaks.values()))
    table = Table("run", "peak GB", "times TRL")
    for method, peak in peaks.items():
        table.add_row(method, f"{peak / 1e9:.3f}", f"{peak / theirs:.3f}")
    settings = {name: value for name, value in vars(options).items() if name != "worker"}
    console = Console(width=120)
    console.print(f"SmolLM2-135M, {settings}; {machine()}")
    console.print(table)
    save("memory_gpu" if default_device().type == "cuda" else "memory", {"settings": settings, "peak_bytes": peaks})
    sys.exit(max(peaks.values()) > LIMIT * theirs)


if __name__ == "__main__":
    main()

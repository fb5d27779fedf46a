"""The demo: fine-tune a 135M-parameter model through a quantum circuit, next to LoRA, and see what it learned.

    python examples/demo/run.py [--section.key value ...]

Takes about six minutes on two cores. Results go to a new folder: runs/demo, runs/demo-2 and so on. What can be
set in a recipe can be set here for both runs: --model.name HuggingFaceTB/SmolLM2-360M-Instruct --training.steps 100.
"""

from __future__ import annotations

import subprocess
import sys
import warnings
from itertools import count
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file
from word_problems import generate_split, write

from qpeft import QpeftError
from qpeft.training import Recipe, TrainedRun, load_recipe, train

HERE = Path(__file__).parent
PROBE = "Ada has 12 shells and finds 5 more. How many shells does Ada have now?"
LORA = ["--adapter.type", "lora", "--adapter.r", "8", "--adapter.lora_alpha", "16"]
SECOND = ["--evaluation.before", "false"]  # the base model has been measured by then


def main(overrides: list[str]) -> None:
    """Run the demo."""
    console = Console(highlight=False, soft_wrap=True)
    folder = new_folder(Path("runs"))
    training, held_out = generate_split(800, 64, seed=0)
    folder.mkdir(parents=True)
    write(folder / "train.jsonl", training)
    write(folder / "eval.jsonl", held_out)

    runs = {}
    for name, options in (("qtha", []), ("lora", [*LORA, *SECOND])):
        console.rule(f"{name}: {'a circuit of 8 qubits between tensor networks' if name == 'qtha' else 'rank 8'}")
        runs[name] = train(recipe(folder, name, [*options, *overrides]), console=console)

    console.rule("what came of it")
    console.print(comparison(folder, runs))
    show_answers(console, runs["qtha"])
    console.rule("reloading the adapter in a new process")
    reload(folder, runs["qtha"])
    console.print(f"\nEverything is in {folder}: adapters, model cards, loss curves (loss.png), records (run.json).")


def new_folder(parent: Path) -> Path:
    """The first of demo, demo-2, demo-3, ... that does not exist."""
    names = (f"demo-{number}" if number > 1 else "demo" for number in count(1))
    return next(parent / name for name in names if not (parent / name).exists())


def recipe(folder: Path, name: str, overrides: list[str]) -> Recipe:
    """The demo's recipe, pointed at the demo's data."""
    places = {
        "--data.train": folder / "train.jsonl",
        "--data.eval": folder / "eval.jsonl",
        "--output.folder": folder / name,
    }
    return load_recipe(HERE / "recipe.yaml", [*(str(part) for pair in places.items() for part in pair), *overrides])


def comparison(folder: Path, runs: dict[str, TrainedRun]) -> Table:
    """One row per method, and the base model."""
    table = Table("", "trainable parameters", "held-out loss", "exact match", "seconds per step", "adapter file")
    base = runs["qtha"].record["before"]
    table.add_row("base model", "0", f"{base['loss']:.3f}", f"{base['exact_match']:.0%}", "-", "-")
    largest = runs["lora"].record["adapter"]["trainable_parameters"]
    for name, run in runs.items():
        parameters, after = run.record["adapter"]["trainable_parameters"], run.record["after"]
        fewer = f" (-{1 - parameters / largest:.1%})" if parameters < largest else ""
        size = (folder / name / "adapter_model.safetensors").stat().st_size
        table.add_row(
            name,
            f"{parameters:,}{fewer}",
            f"{after['loss']:.3f}",
            f"{after['exact_match']:.0%}",
            f"{run.record['seconds_per_step']:.2f}",
            f"{size / 1e6:.2f} MB",
        )
    return table


def show_answers(console: Console, run: TrainedRun) -> None:
    """Two held-out questions: what the base model says and what the adapted one does."""
    for before, after in list(zip(run.record["before"]["samples"], run.record["after"]["samples"], strict=True))[:2]:
        console.print(f"\n[bold]question[/bold]  {after['question']}")
        console.print("[bold]before[/bold]   ", before["text"].replace("\n", " "), markup=True)
        console.print("[bold]after[/bold]    ", after["text"], f"({'right' if after['right'] else 'wrong'})")
        console.print("[bold]expected[/bold] ", after["expected"])


def reload(folder: Path, run: TrainedRun) -> None:
    """Compare logits with those of a new process that loads the saved adapter."""
    tokens = run.tokenizer(PROBE, return_tensors="pt")
    run.model.eval()
    with torch.no_grad():
        logits = run.model(**tokens).logits
    save_file({"logits": logits.contiguous(), "input_ids": tokens["input_ids"]}, str(folder / "probe.safetensors"))
    name = run.record["recipe"]["model"]["name"]
    command = [sys.executable, str(HERE / "reload.py"), name, str(folder / "qtha"), str(folder / "probe.safetensors")]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft)\.")
    try:
        main(sys.argv[1:])
    except QpeftError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)

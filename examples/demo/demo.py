"""What the demo does: three adapters on the same problems, a table, answers, a page, and the adapter loaded again."""

from __future__ import annotations

import html
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file
from word_problems import generate_split, write

from qpeft.comparison.trial_work import neutral_text
from qpeft.evaluation import held_out_loss
from qpeft.training import Recipe, TrainedRun, load_recipe, train

HERE = Path(__file__).parent
PROBE = "Ada has 12 shells and finds 5 more. How many shells does Ada have now?"
SECOND = ["--evaluation.before", "false"]  # the base model has been measured by then
RUNS = {
    "qtha": ("QTHA", []),
    "lora": (
        "LoRA, rank 8",
        ["--adapter", "{type: lora, r: 8, lora_alpha: 16, target_modules: [q_proj, v_proj]}", *SECOND],
    ),
    "lora-same-size": (
        "LoRA, same size",
        ["--adapter", "{type: lora, r: 1, lora_alpha: 2, target_modules: [v_proj, down_proj]}", *SECOND],
    ),
}
"""Folder, title and options of each run. The last has the modules of the first, at the same rank."""
CLOSING = """What to try next:
  qpeft init mine.yaml                    your own model and your own data: it asks, and looks at both
  qpeft chat {folder}/qtha            talk with what was just trained; /both shows the base model beside it
  qpeft compare examples/studies/word_problems_again.yaml    one run is one draw; this asks ten seeds
Differences of a few hundredths mean nothing here: each method was trained once."""


def main(overrides: list[str], start: float) -> None:
    """Run the demo. `start`: when it was called, by the monotonic clock."""
    console = Console(highlight=False, soft_wrap=True)
    folder = new_folder(Path("runs"))
    training, held_out = generate_split(800, 64, seed=0)
    folder.mkdir(parents=True)
    write(folder / "train.jsonl", training)
    write(folder / "eval.jsonl", held_out)

    runs, neutral = {}, {}
    for name, (title, options) in RUNS.items():
        console.rule(title)
        runs[name] = train(recipe(folder, name, [*options, *overrides]), console=console)
        if not neutral:
            with runs[name].model.disable_adapter():
                neutral["base"] = neutral_loss(runs[name])
        neutral[name] = neutral_loss(runs[name])

    console.rule("what came of it")
    rows = comparison(folder, runs, neutral)
    table = Table(*rows[0])
    for row in rows[1:]:
        table.add_row(*row)
    console.print(table)
    show_answers(console, runs["qtha"])
    console.rule("reloading the adapter in a new process")
    reload(folder, runs["qtha"])
    report = folder / "report.html"
    report.write_text(page(rows, runs["qtha"]), encoding="utf-8")
    console.print(f"\nReport: {report.resolve().as_uri()}", soft_wrap=True)
    console.print(
        f"Adapters, model cards, loss curves and records: {folder}. {time.monotonic() - start:.0f} s in all.\n"
    )
    console.print(CLOSING.format(folder=folder))


def neutral_loss(run: TrainedRun) -> float:
    """Nats per token of English that nobody trained for: what an adapter costs the rest of the model."""
    return held_out_loss(run.model, neutral_text(run.tokenizer, 256), tokens_per_batch=2048).loss


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


def comparison(folder: Path, runs: dict[str, TrainedRun], neutral: dict[str, float]) -> list[list[str]]:
    """Titles, one row for the base model, and one row per run."""
    before = runs["qtha"].record["before"]
    rows = [
        ["", "parameters", "held-out loss", "other English", "s per step", "file"],
        ["base model", "0", f"{before['loss']:.3f}", f"{neutral['base']:.3f}", "-", "-"],
    ]
    for name, run in runs.items():
        size = (folder / name / "adapter_model.safetensors").stat().st_size
        rows.append(
            [
                RUNS[name][0],
                f"{run.record['adapter']['trainable_parameters']:,}",
                f"{run.record['after']['loss']:.3f}",
                f"{neutral[name]:.3f}",
                f"{run.record['seconds_per_step']:.2f}",
                f"{size / 1e6:.2f} MB",
            ]
        )
    return rows


def page(rows: list[list[str]], run: TrainedRun) -> str:
    """The same as a page: table, loss curves, answers."""
    cells = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows]
    table = "".join(f"<tr>{row}</tr>" for row in cells)
    curves = "".join(
        f'<figure><img src="{name}/loss.png" alt="loss curve"><figcaption>{html.escape(title)}</figcaption></figure>'
        for name, (title, _) in RUNS.items()
    )
    pairs = zip(run.record["before"]["samples"], run.record["after"]["samples"], strict=True)
    answers = "".join(
        f"<h3>{html.escape(after['question'])}</h3><p>before: {html.escape(before['text'])}<br>"
        f"after: <b>{html.escape(after['text'])}</b><br>expected: {html.escape(after['expected'])}</p>"
        for before, after in pairs
    )
    style = (
        ":root{color-scheme:light dark}body{font:16px system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}"
        "table{border-collapse:collapse}td{padding:.4rem .8rem;border-bottom:1px solid #8888}img{max-width:100%}"
        "div{overflow-x:auto}figure{margin:1rem 0}"
    )
    head = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>qpeft demo</title><style>{style}</style><h1>qpeft demo</h1>"
    )
    caution = "<p>One training of each: differences of a few hundredths mean nothing.</p>"
    return f"{head}{caution}<div><table>{table}</table></div>{curves}<h2>Answers of QTHA</h2>{answers}</html>\n"


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

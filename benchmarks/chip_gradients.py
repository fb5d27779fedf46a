"""One training step through a chip: gradients by parameter shift and SPSA against the exact ones.

    qpeft devices emulator --port 8123 &
    QPEFT_ORIGIN_KEY=emulator python benchmarks/chip_gradients.py runs/word_problems_on_chip --chip 72

FOLDER is a trained adapter with one layer on the device of its recipe (examples/word_problems_on_chip.yaml): a fresh
one has zero gradients, since its update starts at zero. The step is one sequence, of which at most 8 tokens reach the
loss. Gradients are those of the circuit's weights and of the down factor before it, which gets its own through the
circuit's inputs and, always exact, through the classical path. Circuits are counted before and after.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from timing import save
from torch import Tensor, nn

import qpeft
from qpeft.adapters.qtha.quantum_device import device_circuits, reachable_tokens
from qpeft.devices import (
    Journal,
    JournalledRunner,
    ParameterShift,
    Simulated,
    Spsa,
    backward_circuits,
    forward_circuits,
    load_device,
)
from qpeft.devices.gradients import AbstractGradient
from qpeft.training.splits import load_splits
from qpeft_cli.adapted import load_adapted

TOKENS = 8
METHODS: dict[str, AbstractGradient] = {
    "parameter-shift": ParameterShift(),
    "spsa, 1 direction": Spsa(),
    "spsa, 16 directions": Spsa(num_directions=16),
    "simulated": Simulated(),
}


def gradients(model: nn.Module, batch: dict[str, Tensor], layer: str) -> dict[str, Tensor]:
    """Of the layer's circuit weights and of its down factor, flat."""
    model.zero_grad()
    model(**batch).loss.backward()
    found: dict[str, Tensor] = {}
    for part in ("middle.weights", "down"):
        weights = [w for name, w in model.named_parameters() if layer in name and f".{part}" in name]
        found[part] = torch.cat([w.grad.flatten() for w in weights if w.grad is not None])
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--url", default="http://127.0.0.1:8123")
    parser.add_argument("--chip", default="72")
    parser.add_argument("--shots", type=int, default=1000)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/chip_gradients.json")
    options = parser.parse_args()

    adapted = load_adapted(options.folder)
    model, recipe = adapted.model, adapted.recipe
    assert recipe.device is not None
    assert recipe.device.layers is not None
    [layer] = recipe.device.layers
    example = load_splits(recipe.data, adapted.tokenizer)[0].encoded[0]
    ids, labels = (torch.tensor([part[-TOKENS - 1 :]]) for part in (example.input_ids, example.labels))
    batch = {"input_ids": ids, "labels": labels, "attention_mask": torch.ones_like(ids)}
    for name, weight in model.named_parameters():
        weight.requires_grad_(layer in name)
    exact = gradients(model, batch, layer)

    device = load_device("origin", url=options.url, chip=options.chip)
    [middle] = device_circuits(model, [layer]).values()
    tokens = reachable_tokens(batch["attention_mask"], labels)
    num_rows = int(tokens.sum())
    table = Table("gradient", "stated", "sent", *(f"{part}: {what}" for part in exact for what in ("cosine", "error")))
    rows = []
    for name, method in METHODS.items():
        stated = forward_circuits(middle.circuit, num_rows) + backward_circuits(middle.circuit, method, num_rows)
        with tempfile.TemporaryDirectory() as folder:
            journal = Journal(Path(folder) / "journal.sqlite")
            runner = JournalledRunner(journal, "step")
            evaluator = qpeft.set_quantum_device(
                model, device, shots=options.shots, gradient=method, layers=[layer], runner=runner
            )
            assert evaluator is not None
            evaluator.tokens = tokens
            found = gradients(model, batch, layer)
            sent = journal.spent("step").circuits
            journal.close()
        qpeft.set_quantum_device(model, None)
        row: dict[str, object] = {"gradient": name, "stated": stated, "sent": sent}
        for part, values in found.items():
            row[f"{part}: cosine"] = round(torch.cosine_similarity(values, exact[part], dim=0).item(), 3)
            row[f"{part}: error"] = round(((values - exact[part]).norm() / exact[part].norm()).item(), 3)
        rows.append(row)
        table.add_row(*map(str, row.values()))
    Console(width=140).print(
        f"chip {options.chip}, {options.shots} shots, {num_rows} tokens; errors are relative", table
    )
    if options.save:
        save(f"chip_gradients_{options.chip}", rows)


if __name__ == "__main__":
    main()

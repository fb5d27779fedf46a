"""`qpeft inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from qpeft_cli.inspect_circuit import show_circuits
from qpeft_cli.options import RecipeKeys
from qpeft_cli.terminal import plain_console

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from qpeft.training import Recipe
    from qpeft.training.splits import Split


def inspect(
    context: typer.Context,
    recipe: Annotated[
        str | None,
        typer.Argument(
            help="YAML file; keys can be set after it, as for train. With --circuit also names of ansatze, or nothing.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(help="Quantum device to state the bill for; --device.name.")] = None,
    data: Annotated[
        bool, typer.Option("--data", help="Look at the data alone, in more detail: lengths, copies.")
    ] = False,
    circuit: Annotated[
        bool,
        typer.Option("--circuit", help="Look at circuits alone, at random angles: the recipe's, named ones, or all."),
    ] = False,
    qubits: Annotated[
        int | None, typer.Option(min=1, max=12, help="With --circuit: without a recipe 8 by default.")
    ] = None,
    depth: Annotated[
        int | None, typer.Option(min=1, max=16, help="With --circuit: layers; without a recipe 1 by default.")
    ] = None,
    samples: Annotated[
        int | None, typer.Option(min=100, help="With --circuit: pairs of states; 5,000 by default.", show_default=False)
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="With --circuit: of all angles; else as for train.")] = None,
    figure: Annotated[Path | None, typer.Option(help="With --circuit: .svg or .png file to draw.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="With --circuit: all numbers as JSON.")] = False,
    keys: RecipeKeys = False,  # noqa: ARG001
) -> None:
    """Show what a recipe would train, without training: layers, parameters against LoRA, one sample with its mask.

    With a quantum device, in the recipe or by --device, also what it would be sent and, from its calibration, what it
    would make of the circuits.

    With --circuit instead what circuits could do and how they would train: expressibility, entanglement, gradients
    against qubits, frequencies.

    \b
    Examples:
      qpeft inspect recipe.yaml
      qpeft inspect recipe.yaml --data
      qpeft inspect --circuit ring_crz ring_cz
    """
    if circuit:
        if device is not None or data:
            raise typer.BadParameter(
                "cannot be combined with --device or --data; leave these out", param_hint="--circuit"
            )
        what = [*([recipe] if recipe is not None else []), *context.args]
        show_circuits(what, qubits=qubits, depth=depth, samples=samples, seed=seed, figure=figure, as_json=as_json)
        return
    if as_json or any(option is not None for option in (qubits, depth, samples, figure)):
        raise typer.BadParameter(
            "is needed for --qubits, --depth, --samples, --figure and --json", param_hint="--circuit"
        )
    if recipe is None:
        raise typer.BadParameter("is missing: name a YAML file, or give --circuit", param_hint="RECIPE")
    from qpeft.adapters.build import build_config, count_layers, lora_parameters
    from qpeft.models import load_skeleton
    from qpeft.training import load_recipe

    # `--seed` is an option here for circuits; with a recipe it is the recipe's key.
    overrides = context.args if seed is None else [*context.args, "--seed", str(seed)]
    parsed = load_recipe(Path(recipe), overrides if device is None else [*overrides, "--device.name", device])
    console = plain_console()
    # Shapes without weights: nothing here needs more.
    skeleton = load_skeleton(parsed.model.name, trust_remote_code=parsed.model.trust_remote_code)
    if data:
        _show_splits(parsed, skeleton, console, in_full=True)
        return
    config = build_config(parsed.adapter.type, parsed.adapter.options)
    # LoRA of the same rank is what readers know; methods without a rank stand beside the most usual one.
    rank: int = getattr(config, "rank", None) or getattr(config, "r", None) or 8
    kinds = count_layers(skeleton, config)
    table = Table("layer", "shape (out x in)", "how many", "parameters each", "all", f"LoRA of rank {rank}")
    ours = theirs = 0
    for kind in kinds:
        trained, lora = kind.count * kind.parameters, kind.count * lora_parameters(kind, rank)
        ours, theirs = ours + trained, theirs + lora
        shape = f"{kind.out_features} x {kind.in_features}"
        table.add_row(kind.name, shape, str(kind.count), f"{kind.parameters:,}", f"{trained:,}", f"{lora:,}")
    table.add_section()
    table.add_row("together", "", str(sum(kind.count for kind in kinds)), "", f"{ours:,}", f"{theirs:,}")
    console.print(table)
    word = "more" if ours > theirs else "fewer"
    console.print(f"{abs(1 - ours / theirs):.1%} {word} trainable parameters than LoRA of rank {rank}.")
    training = _show_splits(parsed, skeleton, console, in_full=False)
    if parsed.device is not None:
        _show_device(parsed, skeleton, training, console)


def _show_splits(recipe: Recipe, skeleton: PreTrainedModel, console: Console, *, in_full: bool) -> Split:
    """Print numbers and a sample of the training and held-out data, and what training would say of them.

    In full also lengths and copies. Returns: the training data.
    """
    from qpeft.data import render_sample
    from qpeft.data.inspection import find_copies, length_tables
    from qpeft.data.store import lengths
    from qpeft.models import load_tokenizer
    from qpeft.training.readable import faults, require_readable
    from qpeft.training.splits import RecipeExamples, load_splits

    tokenizer = load_tokenizer(
        recipe.model.name, chat_template=recipe.model.chat_template, trust_remote_code=recipe.model.trust_remote_code
    )
    # With lost examples kept: what training would refuse is to be seen here.
    training, held_out = load_splits(recipe.data, tokenizer, seed=recipe.seed, keep_lost=True)
    for split in filter(None, (training, held_out)):
        console.print(f"\n{split.source}: {split}")
        for note, examples in split.summary.notes.items():
            console.print(f"note on {examples:,} examples: {note}")
        if in_full:
            for table in length_tables(lengths(split.encoded, before_cut=True), recipe.data.max_length):
                console.print(table)
        console.print("first example; what is marked is trained on:\n")
        console.print(render_sample(tokenizer, split.encoded[0]))
    if in_full:
        once = RecipeExamples(recipe.data, seed=recipe.seed, tokenizer=tokenizer).training(once=True)
        repeated, leaked = find_copies(once, held_out.examples if held_out else ())
        console.print(f"\ncopies among the training examples: {repeated}")
        if held_out is not None:
            console.print(f"held-out examples that are also trained on: {leaked}")
    # All that training would refuse, at once; it stops at the first.
    found = list(faults(recipe, skeleton, tokenizer, training, held_out))
    for fault in found:
        console.print(f"\ntrain refuses this: {fault}", style="bold")
    for note in [] if found else require_readable(recipe, skeleton, tokenizer, training, held_out):
        console.print(f"\nnote: {note}")
    return training


def _show_device(recipe: Recipe, skeleton: PreTrainedModel, training: Split, console: Console) -> None:
    """Print what the device would be sent, and the quality to be expected of a fresh adapter."""
    from transformers import set_seed

    from qpeft.adapters.build import build_config
    from qpeft.devices import load_device
    from qpeft.training.chip_forecast import better_circuit, expected_quality
    from qpeft.training.cost_estimate import training_cost
    from qpeft.training.setup import adapted_model
    from qpeft_cli.on_device import NO_TEXT, NOTICE

    assert recipe.device is not None
    device = load_device(recipe.device.name, **recipe.device.options)
    estimate = training_cost(recipe, device.capabilities(), skeleton, training.encoded)
    console.print()
    console.print(estimate.table())
    if estimate.capabilities.is_remote:
        notice = NOTICE if estimate.text_enters else NO_TEXT
        console.print(notice.format(device=estimate.capabilities.recipient or estimate.capabilities.name))
    if device.calibration() is None:
        console.print(f"{recipe.device.name} has no calibration, so the quality of its results cannot be predicted.")
        return
    # The adapter that training would begin with: its circuits are what the chip would run first.
    set_seed(recipe.seed)
    model = adapted_model(recipe, build_config(recipe.adapter.type, recipe.adapter.options))
    for layer, quality in expected_quality(recipe, device, model, training.encoded).items():
        console.print(f"\nexpected of {layer}: {quality}")
    console.print(better_circuit(recipe, device, model, training.encoded))

"""`qpeft export`, `qpeft merge` and `qpeft finalize`: a trained adapter as something that needs less than itself."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Column, Table

from qpeft_cli.options import AdapterFolder, HeldOutData, TrustRemoteCode
from qpeft_cli.terminal import broken, kinds_of, plain_console

if TYPE_CHECKING:
    from peft import PeftModel

    from qpeft.exporting import ExportReport
    from qpeft.runs.bars import OnProgress
    from qpeft_cli.adapted import Adapted

NewFolder = Annotated[Path, typer.Argument(help="New or empty folder.")]
Calibration = Annotated[
    str | None, typer.Option(help="Examples to fit linear maps on; without it, those of the training run.")
]
CalibrationTokens = Annotated[int, typer.Option(min=1, help="How many tokens of calibration text to use.")]
HeldOutLimit = Annotated[int | None, typer.Option(min=1, help="Use only this many held-out examples, from the start.")]
Tolerance = Annotated[
    float, typer.Option(min=0, help="Share of the adapter's improvement in held-out loss that may be lost.")
]
Force = Annotated[bool, typer.Option("--force", help="Write it however much is lost.")]

KIND_WIDTH = 17
"""Characters of a kind of layer in one line, so that a table fits into 80."""


def export(
    folder: AdapterFolder,
    output: NewFolder,
    form: Annotated[Literal["lora"], typer.Option("--format", help="What to write: a plain PEFT LoRA.")] = "lora",
    rank: Annotated[
        int | None, typer.Option(min=1, help="Highest rank; without it the adapter's own, or 64 where that is higher.")
    ] = None,
    constant: Annotated[
        Literal["absorb", "keep", "drop"],
        typer.Option(
            help="Constant of a map fitted to a circuit: fit without one (absorb), keep it as LoRA's bias (plain "
            "PEFT only), or drop it."
        ),
    ] = "absorb",
    calibration: Calibration = None,
    calibration_tokens: CalibrationTokens = 4096,
    data: HeldOutData = None,
    limit: HeldOutLimit = None,
    tolerance: Tolerance = 0.05,
    force: Force = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Write a trained adapter as a plain LoRA, for where qpeft is not, and report what that loses.

    A plain LoRA is copied. A circuit is replaced by the linear map that comes nearest to it on calibration text.

    \b
    Example:
      qpeft export runs/mine runs/mine-lora
    """
    from qpeft.exporting import export_lora
    from qpeft.exporting.updates import copies_lora
    from qpeft.runs.bars import Bars

    with Bars(Console(stderr=True)) as bars:
        adapted, texts = _load(
            folder, output, calibration, calibration_tokens, data, limit, trust_remote_code,
            # A LoRA is copied as it is, so what it is measured on need not be at hand.
            needs_text=lambda model: not copies_lora(model, rank), on_progress=bars,
        )  # fmt: skip
        report = export_lora(
            adapted.adapter,
            output,
            tokenizer=adapted.tokenizer,
            rank=rank,
            constant=constant,
            tolerance=math.inf if force else tolerance,
            on_progress=bars,
            **texts,
        )
    console = plain_console()
    show(report, output, console)
    console.print(f"saved {form} to {output}")


def merge(
    folder: AdapterFolder,
    output: NewFolder,
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        typer.Option(help="Type of the weights in the files; 'auto' for that of the base model in training."),
    ] = "auto",
    constant: Annotated[
        Literal["keep", "absorb", "drop"],
        typer.Option(
            help="Constant of a map fitted to a circuit: keep it where a layer has a bias, else fit without one "
            "(absorb); or drop it."
        ),
    ] = "keep",
    calibration: Calibration = None,
    calibration_tokens: CalibrationTokens = 4096,
    data: HeldOutData = None,
    limit: HeldOutLimit = None,
    tolerance: Tolerance = 0.05,
    force: Force = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Write the base model with a trained adapter in its weights, and check the files by reading them back.

    A circuit is replaced by the linear map that comes nearest to it on calibration text.

    \b
    Example:
      qpeft merge runs/mine merged-model
    """
    from qpeft.exporting import merge_adapter
    from qpeft.runs.bars import Bars

    with Bars(Console(stderr=True)) as bars:
        adapted, texts = _load(
            folder, output, calibration, calibration_tokens, data, limit, trust_remote_code,
            # Any merge rounds to the type of the weights, which only logits on some text show.
            needs_text=lambda _: True, on_progress=bars,
        )  # fmt: skip
        report = merge_adapter(
            adapted.adapter,
            adapted.tokenizer,
            output,
            constant=constant,
            tolerance=math.inf if force else tolerance,
            dtype=dtype,
            on_progress=bars,
            **texts,
        )
    console = plain_console()
    show(report, output, console, written="merged model")
    console.print(f"saved the merged model to {output}")


def finalize(
    folder: AdapterFolder,
    device: Annotated[str, typer.Option(help="Quantum device that measures the values.")],
    device_option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Of a recipe's device section, such as shots=50000 or options.url=..."),
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Measure a quantum-weighted adapter's values once more, and keep them with it: a plain matrix from then on.

    One circuit for each group of layers is sent, with trained angles and no text in them. The adapter in the folder is
    replaced, whole or not at all. The same command after an interruption pays for nothing twice.
    """
    from qpeft.adapters.qtha.quantum_device import finalize as finalize_adapter
    from qpeft.errors import AdapterError
    from qpeft.runs import hash_file, read_record, write_record
    from qpeft.training.cost_estimate import generation_cost
    from qpeft.training.quantum import DeviceSession
    from qpeft.training.saving import replace_adapter
    from qpeft_cli.adapted import load_adapted
    from qpeft_cli.on_device import asking, section_for

    console = plain_console()
    adapted = load_adapted(folder, trust_remote_code=trust_remote_code)
    # Its circuits are gone, and the weights of a final adapter are what a device measured.
    if getattr(adapted.adapter.active_peft_config, "finalized", False):
        raise AdapterError(f"The adapter in {folder} is final already. Take it as it was before, to measure it anew.")
    section = section_for(adapted.recipe, device, device_option or ())
    session = DeviceSession(section, seed=adapted.recipe.seed)
    estimate = generation_cost(section, session.device.capabilities(), adapted.adapter, (), 1)
    console.print(estimate.table())
    # Trained angles hold no text of the user, so nobody is asked; the notice is said all the same.
    asking(console, yes=False)(estimate)
    # Named after the weights: an interrupted command finds what it has paid for, and another adapter does not.
    run_id = f"{folder.name}-final-{hash_file(folder / 'adapter_model.safetensors')[:8]}"
    errors = finalize_adapter(adapted.adapter, session.device, shots=section.shots, **session.through(run_id))
    # The weights first: a record that calls an adapter final must never stand beside one that is not.
    replace_adapter(adapted.adapter, folder)
    spent = session.spent(run_id)
    measured = {"device": device, "shots": section.shots, "run": run_id, "largest_standard_error": max(errors.values())}
    write_record(folder, read_record(folder) | {"final": measured | vars(spent)})
    console.print(f"sent to {device} as run {run_id}: {spent}; largest standard error {max(errors.values()):.4f}")
    console.print(f"the adapter in {folder} is final: it needs no circuit any more")


def _load(
    folder: Path,
    output: Path,
    calibration: str | None,
    calibration_tokens: int,
    data: str | None,
    limit: int | None,
    trust_remote_code: bool,
    *,
    needs_text: Callable[[PeftModel], bool],
    on_progress: OnProgress,
) -> tuple[Adapted, dict[str, Any]]:
    """Return the adapter on its base model, and what both writers take: texts to fit and to measure on, and the recipe.

    Raises: OutputError if `output` is in use or `folder` no run; AdapterError, ModelError or DataError.
    """
    from qpeft.errors import AdapterError
    from qpeft.exporting.plan import require_free
    from qpeft.training.splits import load_calibration, load_held_out
    from qpeft_cli.adapted import holds_model, load_adapted

    # Before the model is loaded, which takes minutes for a large one.
    require_free(output)
    if holds_model(folder):
        raise AdapterError(
            f"{folder} holds full weights and no adapter beside them, so there is nothing to export or merge. Name the "
            "folder of the adapter."
        )
    on_progress("loading the base model", 0, 0)
    adapted = load_adapted(folder, trust_remote_code=trust_remote_code)
    recipe = adapted.recipe
    # An adapter that was copied beside another run's record would be fitted on the wrong base model.
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    named = config.get("base_model_name_or_path")
    if named != recipe.model.name:
        raise AdapterError(
            f"{folder}: adapter_config.json names the base model {named!r}, and run.json {recipe.model.name!r}. The "
            "two files are of different runs; put the adapter beside its own run.json."
        )
    given: dict[str, Any] = {
        "calibration": (),
        "held_out": (),
        # As the model card has it: not where the run was.
        "recipe": recipe.model_dump(mode="json", exclude={"output"}),
        "base_name": recipe.model.name,
        "notice": recipe.output.notice,
    }
    if calibration is None and data is None and not needs_text(adapted.adapter):
        return adapted, given
    on_progress("reading the text", 0, 0)
    options = recipe.data
    if data is not None:
        options = options.model_copy(update={"hold_out": None, "eval": data, "eval_limit": None})
    if calibration is not None and options.hold_out is None:
        # The file that was trained on may be elsewhere by now.
        options = options.model_copy(update={"train": calibration, "limit": None})
    held_out = load_held_out(options, adapted.tokenizer)
    # What is held out of the training file must be chosen from that file, so it is exchanged only now.
    if calibration is not None and options.hold_out is not None:
        options = options.model_copy(update={"train": calibration, "hold_out": None, "limit": None})
    training = load_calibration(options, adapted.tokenizer, seed=recipe.seed, tokens=calibration_tokens)
    return adapted, given | {"calibration": training, "held_out": held_out.encoded[:limit] if held_out else ()}


def show(report: ExportReport, folder: Path, console: Console, *, written: str = "export") -> None:
    """Print a report: kinds of layers, then the whole.

    Args:
        report: of what was written.
        folder: where that is, with every layer by itself.
        console: where it goes.
        written: what it is, in words.
    """
    # A model has hundreds of layers and a dozen kinds; the card lists the layers.
    where, kinds = kinds_of(report.layers)
    is_fitted = any(layer.explained is not None for layer in report.layers.values())
    fitted = ("explained", "constant", "missed") if is_fitted else ()
    table = Table(Column("layers", no_wrap=True), "count", "rank", "cut off", *fitted)
    for kind, names in kinds.items():
        layers = [report.layers[name] for name in names]
        ranks = sorted({layer.rank for layer in layers if layer.rank is not None})
        rank = f"{ranks[0]} to {ranks[-1]}" if len(ranks) > 1 else f"{ranks[0]}" if ranks else "full"
        cells = [rank, f"{max(layer.svd_error for layer in layers):.1e}"]
        explained = [layer.explained for layer in layers if layer.explained is not None]
        constants = [layer.constant_share for layer in layers if layer.constant_share is not None]
        missed = [layer.missed for layer in layers if layer.missed is not None]
        # The worst layer of a kind stands for it.
        if explained and constants and missed:
            kept = " kept" if any(layer.keeps_constant for layer in layers) else ""
            cells += [f"{min(explained):.2%}", f"{max(constants):.1%}{kept}", f"{max(missed):.1%}"]
        elif is_fitted:
            cells += ["-", "-", "-"]
        table.add_row(broken(kind, KIND_WIDTH), f"{len(layers):,}", *cells)
    if where:
        console.print(f"layers of {where}:")
    console.print(table)
    worst = "; variance explained: the least; constant and missed: the most" if is_fitted else ""
    console.print(f"cut off: the most of a kind{worst}. Each layer by itself: {folder / 'README.md'}")
    if report.calibration_tokens:
        console.print(f"linear maps fitted on {report.calibration_tokens:,} tokens")
    logits = report.logits
    if logits is None or report.base_logits is None:
        console.print("The adapter is a plain LoRA: its matrices were copied as they are, and nothing is lost.")
        return
    console.print(
        f"logits differ from the adapter's by {logits.maximum:.2e} at most, {logits.mean:.2e} on average; divergence "
        f"{logits.divergence:.2e} nats per token (of the base model {report.base_logits.divergence:.2e}; "
        f"{logits.tokens:,} tokens)"
    )
    # Logits tell how near the two are, and the loss whether what is left apart matters.
    if (losses := report.losses) is not None:
        console.print(
            f"held-out loss: base {losses.base:.4f}, adapter {losses.adapter:.4f}, {written} {losses.export:.4f} "
            f"({losses.tokens:,} tokens)"
        )
    console.print(f"kept: {report.kept:.2%} of {report.criterion}")
    if (reloaded := report.reloaded) is not None:
        console.print(
            f"read back from the files, logits differ from the adapter's by {reloaded.maximum:.2e} at most, "
            f"{reloaded.mean:.2e} on average ({reloaded.tokens:,} tokens)"
        )

"""README.md of an exported folder: what it is, how to load it, what it lost."""

from __future__ import annotations

import yaml

from qpeft.data import AnswerEnds, ends_note
from qpeft.exporting.report import ExportReport, LayerReport

LORA_USE = """```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{base}"), "path/to/this/folder")
```"""

ENDS = """`generation_config.json` says where answers end, and PEFT does not read it by itself:
`model.generation_config = transformers.GenerationConfig.from_pretrained("path/to/this/folder")`."""

MERGED_USE = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
```"""


def lora_card(report: ExportReport, *, base: str, ends: AnswerEnds | None, notice: str | None) -> str:
    """Return the card of a LoRA, in Markdown with the metadata that model hubs read.

    Args:
        report: what was measured of the export.
        base: name of the base model.
        ends: tokens at which answers end, if they are known.
        notice: warning that the card must carry.
    """
    use = f"A plain PEFT LoRA: qpeft is not needed to load it.\n\n{LORA_USE.format(base=base)}"
    if ends is not None:
        use += f"\n\n{ENDS} {ends_note(ends)}".rstrip()
    # A model of a Python package is a name of ours alone, so plain PEFT has to be told where to find its weights.
    if base.startswith("package:"):
        use += (
            f"\n\n`{base}` is no name that transformers knows: the base model is what `qpeft.models.load_model` makes "
            "of that Python package. Save it once with `save_pretrained`, and name that folder here."
        )
    title = f"LoRA for {base}, exported from a {report.method.upper()} adapter"
    return _card(title, use, report, base=base, tags=["lora"], library="peft", notice=notice)


def merged_card(report: ExportReport, *, base: str, ends: AnswerEnds, notice: str | None) -> str:
    """Return the card of a merged model, in Markdown with the metadata that model hubs read.

    Args:
        report: what was measured of the export.
        base: name of the base model.
        ends: tokens at which answers end.
        notice: warning that the card must carry.
    """
    use = f"Full weights: neither peft nor qpeft is needed to load them.\n\n{MERGED_USE}"
    if ends.texts:
        use += f"\n\n{ends_note(ends)}"
    title = f"{base} with a {report.method.upper()} adapter merged into it"
    return _card(title, use, report, base=base, tags=["merge"], library="transformers", notice=notice)


def _card(
    title: str, use: str, report: ExportReport, *, base: str, tags: list[str], library: str, notice: str | None
) -> str:
    metadata = {"base_model": base, "library_name": library, "tags": ["qpeft", *tags, "text-generation"]}
    parts = [f"---\n{yaml.safe_dump(metadata, sort_keys=False)}---", f"# {title}"]
    if notice:
        parts.append(f"> **{notice.strip()}**")
    worth = f"The export keeps {report.kept:.2%} of {report.criterion}."
    if (logits := report.logits) is not None and report.base_logits is not None:
        rows = ["| | base | adapter | export |", "| --- | --- | --- | --- |"]
        if (losses := report.losses) is not None:
            name = f"held-out loss, nats per token ({losses.tokens:,} tokens)"
            rows.append(f"| {name} | {losses.base:.4f} | {losses.adapter:.4f} | {losses.export:.4f} |")
        name = f"divergence from the adapter, nats per token ({logits.tokens:,} tokens)"
        rows.append(f"| {name} | {report.base_logits.divergence:.2e} | 0 | {logits.divergence:.2e} |")
        worth += f" Its logits differ from the adapter's by {logits.maximum:.2e} at most, {logits.mean:.2e} on average"
        # Of a merged model only: rounding to the files' type is part of what it lost.
        if (again := report.reloaded) is not None:
            worth += f"; read back from the files here, by {again.maximum:.2e} at most, {again.mean:.2e} on average"
        worth += ".\n\n" + "\n".join(rows)
    layers = ["| layer | rank | cut off | variance explained | constant | missed |", "| --- " * 6 + "|"]
    layers += [f"| {name} | {' | '.join(layer_cells(layer))} |" for name, layer in report.layers.items()]
    parts += ["## Use", use, "## What was kept", worth, "## Layers"]
    if report.calibration_tokens:
        parts.append(
            f"Linear maps were fitted to the updates on {report.calibration_tokens:,} tokens. Explained: share of the "
            "update's variance that a linear map with a constant gives. Constant: its size against the update's, both "
            "root mean squares. Missed: the same of what the exported map leaves."
        )
    parts.append("\n".join(layers))
    return "\n\n".join(parts) + "\n"


def layer_cells(layer: LayerReport) -> list[str]:
    """Return a layer's rank, error of cutting to it, variance explained, constant and missed share, as text."""
    fitted = ["-", "-", "-"]
    if layer.explained is not None and layer.constant_share is not None and layer.missed is not None:
        kept = " kept" if layer.keeps_constant else ""
        fitted = [f"{layer.explained:.2%}", f"{layer.constant_share:.1%}{kept}", f"{layer.missed:.1%}"]
    return ["full" if layer.rank is None else str(layer.rank), f"{layer.svd_error:.1e}", *fitted]

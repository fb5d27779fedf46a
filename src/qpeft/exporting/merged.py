"""An adapter merged into full weights, in a folder that transformers loads by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from qpeft.adapters.base import require_linear
from qpeft.data import Encoded, answer_ends, settle_ends
from qpeft.errors import ModelError, NotMergeableError, OutputError
from qpeft.exporting.card import merged_card
from qpeft.exporting.comparison import (
    logits_difference,
    logits_of,
    standing_in,
    trainability_restored,
)
from qpeft.exporting.low_rank import Constant
from qpeft.exporting.plan import ExportPlan, finish_folder, first_tokens, make_plan, require_free
from qpeft.exporting.report import ExportReport
from qpeft.exporting.updates import active_adapter, adapted_layers, delta_weight
from qpeft.models import load_model
from qpeft.models.load import DTYPES
from qpeft.models.package import forget_gguf, no_progress_bars
from qpeft.runs.bars import OnProgress, to_nobody
from qpeft.runs.files import staged

READ_BACK_TOKENS = 256
"""Whose logits are computed again from the files: kept in memory meanwhile, as wide as the vocabulary."""

READ_BACK_ERROR = 1e-4
"""Files hold what was in memory, so logits differ by rounding at most; relative to the largest, for float32."""


def merge_adapter(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    output: Path,
    *,
    calibration: Sequence[Encoded] = (),
    held_out: Sequence[Encoded] = (),
    recipe: Mapping[str, Any] | None = None,
    constant: Constant = "keep",
    tolerance: float = 0.05,
    dtype: str = "auto",
    base_name: str | None = None,
    notice: str | None = None,
    on_progress: OnProgress = to_nobody,
) -> ExportReport:
    """Write the base model with the active adapter in its weights, and check the files by reading them back.

    Matrices are added as they are. Updates that depend on their input are replaced by linear maps, as in
    `export_lora`; their constants go into the biases of layers that have one, and a layer without is given none.

    Args:
        model: with its adapter active. Once everything is measured it is unloaded, as by PEFT's `merge_and_unload`;
            an error before that leaves it as it was.
        tokenizer: saved beside the weights. generation_config.json names where its chat template ends answers.
        output: a new or empty folder. It appears whole or not at all.
        constant: `keep` in biases where a layer has one, elsewhere as `absorb`; else as for `export_lora`.
        dtype: of the files: one of `models.load.DTYPES`, 'auto' for that of the base model.
        recipe, calibration, held_out, tolerance, base_name, notice, on_progress: as for `export_lora`.

    Raises: as `export_lora`; NotMergeableError also for a quantized base; OutputError also for files that do not give
        back what was written. Nothing is left in `output` then.
    """
    require_free(output)
    if dtype not in DTYPES:
        raise ModelError(f"dtype must be one of {', '.join(DTYPES)}; got {dtype!r}.")
    linears = {name: require_linear(layer, name) for name, layer in adapted_layers(model).items()}
    for name, linear in linears.items():
        weight = linear.weight.data
        # Quantized weights are subclasses of Tensor or whole numbers: adding to them would be another rounding.
        if type(weight) is not Tensor or not weight.is_floating_point():
            raise NotMergeableError(
                f"The base weight of {name!r} is a {type(weight).__name__} of {weight.dtype}; qpeft merges into plain "
                "floating-point weights only. Load the base model without quantization, in one piece, then merge."
            )
    # A bias that the model's own class does not have would be dropped by transformers when the files are read.
    without_bias: Constant = "absorb" if constant == "keep" else constant
    plan = make_plan(
        model,
        calibration=calibration,
        held_out=held_out,
        tolerance=tolerance,
        whole=True,
        written="merged model",
        constants={name: without_bias if one.bias is None else constant for name, one in linears.items()},
        on_progress=on_progress,
    )
    base = base_name or model.peft_config[active_adapter(model)].base_model_name_or_path or "the base model"
    # Logits are taken now: merging changes the model in place, and the adapter is gone after it.
    probe = first_tokens(plan.probe, READ_BACK_TOKENS)
    adapter = [logits_of(model, one).cpu() for one in probe]
    with trainability_restored(model), standing_in(plan.layers, plan.updates):
        stand_in = [logits_of(model, one).cpu() for one in probe]
    on_progress("merging and writing", 0, 0)
    merged = _merge(model, plan, linears, dtype)
    with staged(output) as folder, no_progress_bars():
        ends = answer_ends(tokenizer, merged.generation_config)
        settle_ends(merged.generation_config, ends)
        try:
            merged.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        except ValueError as error:
            # Such as a generation config at odds with itself, which transformers loads and will not save.
            message = " ".join(str(error).split())
            raise OutputError(f"transformers refuses to save the merged model: {message}") from error
        on_progress("reading back", 0, 0)
        found = _read_back(merged, folder, probe)
        rounding = logits_difference(zip(stand_in, found, strict=True)).divergence
        assert plan.report.base_logits is not None, "a merge is always measured"
        effect = plan.report.base_logits.divergence
        # In few digits the sum of weight and update may round the update away, which no check of the files sees.
        if rounding > tolerance * effect:
            raise OutputError(
                f"In the merged weights next tokens diverge by {rounding:.2e} nats from what was merged, and the "
                f"adapter moves them by {effect:.2e}. Nothing was written. Use a --dtype with more digits, raise "
                "--tolerance, or --force it."
            )
        report = replace(plan.report, reloaded=logits_difference(zip(adapter, found, strict=True)))
        finish_folder(folder, report, merged_card(report, base=base, ends=ends, notice=notice), recipe)
    return report


@torch.no_grad()
def _merge(model: PeftModel, plan: ExportPlan, linears: dict[str, nn.Linear], dtype: str) -> PreTrainedModel:
    adapter = active_adapter(model)
    for name, update in plan.updates.items():
        linear, layer = linears[name], plan.layers[name]
        if (factors := update.factors) is None:
            change = delta_weight(layer, name, adapter)
        else:
            change = update.scaling * (factors.up.float() @ factors.down.float())
        kind = linear.weight.dtype if dtype == "auto" else getattr(torch, dtype)
        # Rounded once, after the sum. A new parameter, since a tied one belongs to another layer as well.
        change = change.to(linear.weight.device, torch.promote_types(change.dtype, torch.float32))
        linear.weight = nn.Parameter((linear.weight + change).to(kind), requires_grad=False)
        if update.constant is not None:
            assert linear.bias is not None
            bias = linear.bias + update.constant.to(linear.bias.device)
            linear.bias = nn.Parameter(bias.to(kind), requires_grad=False)
    merged: PreTrainedModel = model.unload()
    for weight in merged.parameters() if dtype != "auto" else ():
        # Not buffers: rotary frequencies, which no file holds, stay in float32.
        weight.data = weight.data.to(getattr(torch, dtype))
    forget_gguf(merged)
    # An adapter on the head parts it from the embeddings; still called tied, files would hold only one of the two.
    inputs, outputs = merged.get_input_embeddings(), merged.get_output_embeddings()
    if merged.config.tie_word_embeddings and outputs is not None and inputs.weight is not outputs.weight:
        merged.config.tie_word_embeddings = False
    return merged


def _read_back(merged: PreTrainedModel, folder: Path, probe: Sequence[Encoded]) -> list[Tensor]:
    """Return the logits of the model in the files.

    Raises: OutputError if they are not those of the model in memory.
    """
    expected = [logits_of(merged, one).cpu() for one in probe]
    # Code of the model's own is running already, by the user's leave.
    is_foreign = type(merged).__module__.startswith("transformers_modules.")
    again = load_model(str(folder), dtype="auto", trust_remote_code=is_foreign).to(merged.device)
    found = [logits_of(again, one).cpu() for one in probe]
    largest = max(float(logits.abs().max()) for logits in expected)
    apart = max(float((one - other).abs().max()) for one, other in zip(found, expected, strict=True))
    if not apart <= max(READ_BACK_ERROR, 4 * torch.finfo(merged.dtype).eps) * largest:
        raise OutputError(
            f"The merged model does not come back from its files: logits differ by {apart:.2e}. Its architecture may "
            "tie or convert weights in a way that qpeft does not know. Nothing was written; export a LoRA instead."
        )
    return found

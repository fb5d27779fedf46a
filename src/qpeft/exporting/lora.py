"""An adapter as a plain PEFT LoRA in a folder."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from qpeft.data import Encoded, answer_ends, save_ends
from qpeft.exporting.card import lora_card
from qpeft.exporting.low_rank import Constant
from qpeft.exporting.plan import ExportPlan, finish_folder, make_plan, require_free
from qpeft.exporting.report import ExportReport
from qpeft.exporting.updates import LinearUpdate, active_adapter, adapted_layers
from qpeft.runs.bars import OnProgress, to_nobody
from qpeft.runs.files import staged

PREFIX = "base_model.model."
"""What PEFT puts before the base model's own names."""


def export_lora(
    model: PeftModel,
    output: Path,
    *,
    calibration: Sequence[Encoded] = (),
    held_out: Sequence[Encoded] = (),
    rank: int | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    recipe: Mapping[str, Any] | None = None,
    constant: Constant = "absorb",
    tolerance: float = 0.05,
    base_name: str | None = None,
    notice: str | None = None,
    on_progress: OnProgress = to_nobody,
) -> ExportReport:
    """Write the active adapter as a LoRA that plain PEFT loads, with a card and export_report.json.

    A plain LoRA is copied as it is. Updates that are matrices are exported exactly at their own rank or above, else cut
    off by singular values. Those that depend on their input are replaced by least-squares linear maps, fitted on
    calibration text that goes through the adapted model, its circuits evaluated where the model has them evaluated.

    Args:
        model: with its adapter active, in any mode; it is left as it was.
        output: a new or empty folder. It appears whole or not at all.
        calibration: examples to fit on; needed only where updates depend on their input.
        held_out: examples on which losses and logits are compared; without any, the last eighth of the calibration
            examples is kept for logits. A plain LoRA needs neither.
        rank: most that a layer may have; None for its own, or 64 where that is higher.
        tokenizer: of the model; with it, generation_config.json says where the chat template ends answers.
        recipe: of the run, for export_report.json, from which `qpeft generate` and `eval` know how questions were put.
        constant: what becomes of the constants of fitted maps. `absorb`: fit without one. `keep`: in LoRA's biases
            (`lora_bias`), which PEFT reads and most servers refuse. `drop`: fit with one, then leave it out.
        tolerance: share of the adapter's improvement in held-out loss that may be lost.
        base_name: of the base model, for config and card; None for what the adapter's config says.
        notice: a warning that the card must carry.
        on_progress: told what is being done, how much of it, and of how much.

    Raises:
        AdapterError: several active adapters, an untrained one, or layers that are not linear.
        NotMergeableError: a method that does not add to its layers.
        DataError: no text to fit or to compare on.
        OutputError: the folder is not empty, the disk refuses, or more than `tolerance` would be lost.
        Nothing has been written then.
    """
    require_free(output)
    plan = make_plan(
        model,
        calibration=calibration,
        held_out=held_out,
        tolerance=tolerance,
        rank=rank,
        constants=dict.fromkeys(adapted_layers(model), constant),
        on_progress=on_progress,
    )
    adapter = active_adapter(model)
    base = base_name or model.peft_config[adapter].base_model_name_or_path or "the base model"
    on_progress("writing", 0, 0)
    with staged(output) as folder:
        save_file(_weights(model, plan), str(folder / "adapter_model.safetensors"), metadata={"format": "pt"})
        _config(model, plan, base).save_pretrained(str(folder))
        path = folder / "adapter_config.json"
        values = json.loads(path.read_text(encoding="utf-8"))
        # PEFT writes sets in the order in which they happen to lie.
        values["target_modules"] = sorted(values["target_modules"])
        path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        # PEFT's config has no place for ends of answers, so they go into a file that transformers reads.
        ends = None
        if tokenizer is not None:
            ends = answer_ends(tokenizer, model.generation_config)
            save_ends(model.generation_config, ends, folder)
        finish_folder(folder, plan.report, lora_card(plan.report, base=base, ends=ends, notice=notice), recipe)
    return plan.report


def _weights(model: PeftModel, plan: ExportPlan) -> dict[str, Tensor]:
    saved = get_peft_model_state_dict(model, adapter_name=active_adapter(model), save_embedding_layers=False)
    ours = tuple(f"{PREFIX}{name}." for name in plan.layers)
    # Modules trained in full stay beside the LoRA.
    weights = {name: weight.contiguous() for name, weight in saved.items() if not name.startswith(ours)}
    with_bias, folds = _has_constants(plan.updates), _folds_scaling(plan.updates)
    for name, update in plan.updates.items():
        assert update.factors is not None
        up = update.factors.up
        weights[f"{PREFIX}{name}.lora_A.weight"] = update.factors.down.contiguous()
        weights[f"{PREFIX}{name}.lora_B.weight"] = (update.scaling * up.float() if folds else up).contiguous()
        if with_bias:
            # LoRA has biases in all layers or in none.
            bias = update.factors.up.new_zeros(len(update.factors.up)) if update.constant is None else update.constant
            weights[f"{PREFIX}{name}.lora_B.bias"] = bias
    return weights


def _config(model: PeftModel, plan: ExportPlan, base: str) -> LoraConfig:
    """Return the config of a plain LoRA: the most common rank and alpha, and patterns for the layers that differ."""
    ranks = {name: update.factors.rank for name, update in plan.updates.items() if update.factors is not None}
    folds = _folds_scaling(plan.updates)
    alphas = {name: rank if folds else round(plan.updates[name].scaling * rank) for name, rank in ranks.items()}
    (usual, alpha), _ = Counter((ranks[name], alphas[name]) for name in ranks).most_common(1)[0]
    # The last parts of the layers' names, as people write them, unless these would match other modules as well.
    short = {name.rsplit(".", 1)[-1] for name in ranks}
    matched = {
        name
        for name, module in model.get_base_model().named_modules()
        if name.rsplit(".", 1)[-1] in short and not any(name.startswith(f"{layer}.") for layer in ranks)
    }
    config = model.peft_config[active_adapter(model)]
    return LoraConfig(
        r=usual,
        lora_alpha=alpha,
        rank_pattern={name: rank for name, rank in ranks.items() if rank != usual},
        # A layer that stands in one pattern stands in the other too: readers differ in what they make of one alone.
        alpha_pattern={name: alphas[name] for name, rank in ranks.items() if (rank, alphas[name]) != (usual, alpha)},
        lora_bias=_has_constants(plan.updates),
        target_modules=sorted(short if matched == set(ranks) else ranks),
        modules_to_save=getattr(config, "modules_to_save", None),
        task_type=config.task_type,
        base_model_name_or_path=base,
        inference_mode=True,
    )


def _folds_scaling(updates: Mapping[str, LinearUpdate]) -> bool:
    """Whether scalings go into the weights, since not all of them are a whole lora_alpha over the rank.

    Those of rsLoRA are not, mostly, and readers of LoRAs are known to overlook `use_rslora` and to round lora_alpha.
    """
    alphas = [update.scaling * update.factors.rank for update in updates.values() if update.factors is not None]
    return any(alpha != round(alpha) for alpha in alphas)


def _has_constants(updates: Mapping[str, LinearUpdate]) -> bool:
    return any(update.constant is not None for update in updates.values())

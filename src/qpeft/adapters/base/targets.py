"""Checks, before an adapter is made, that everything its config names is there and that it would act on every layer."""

from __future__ import annotations

import copy
import difflib
import logging
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftConfig
from torch import Tensor, nn

from qpeft.adapters import bridge
from qpeft.adapters.base.config import check_pattern
from qpeft.errors import AdapterError

logger = logging.getLogger(__name__)

PROBE_ROWS = 720_720
"""Rows of the input that odd layers are tried on. Without memory behind them they are free, and they divide into any
number of groups up to 16, so that a layer which regroups its rows shows it.
"""

ADDED_BY_PEFT = {"classifier", "score", "qa_outputs"}
"""PEFT puts all names that heads of a task may have into modules_to_save, and a model has one of them."""


@dataclass(frozen=True)
class Reader:
    """Children of a kind of module that reads their weights itself, so that an adapter on them has no effect.

    Attributes:
        layers: names of the children.
        how: what the module does with their weights, after "its weight is".
        instead: what the user can do.
        when: whether a module of the kind does so, from its options.
    """

    layers: tuple[str, ...]
    how: str
    instead: str
    when: Callable[[Any], bool] = lambda _: True


def _has_fast_path(layer: Any) -> bool:
    """Whether torch's encoder layer skips its children in evaluation mode, when no gradient is asked for."""
    attention = layer.self_attn
    return bool(
        torch.backends.mha.get_fastpath_enabled()
        and attention.batch_first
        and attention.in_proj_bias is not None
        and attention.num_heads % 2 == 0
        and layer.activation_relu_or_gelu
        and layer.norm1.eps == layer.norm2.eps
    )


def _has_fused_bias(attention: Any) -> bool:
    return attention.q_bias is not None and not attention.qkv_bias_separate


MULTIPLIED = "multiplied with directly, and the layer is never called"
FUSED = "read by a fused kernel, which does not call the layer, wherever that kernel is installed"
OTHERS = "Adapt other layers of the model."

MAMBA_2 = Reader(("out_proj", "conv1d"), FUSED, "Adapt in_proj.")
RESCALED = "divided by a power of two in evaluation mode, and the update of an adapter is not"
NO_RESCALING = "Load the model with rescale_every=0 in its config."

READERS: Mapping[str, Reader] = {
    "torch.nn.modules.activation.MultiheadAttention": Reader(
        ("out_proj",), MULTIPLIED, "Adapt linear layers around the attention."
    ),
    "torch.nn.modules.transformer.TransformerEncoderLayer": Reader(
        ("self_attn", "linear1", "linear2"),
        "read by torch's fast path in evaluation mode, which does not call the layer",
        "Turn that path off by torch.backends.mha.set_fastpath_enabled(False) before an adapter is made or loaded.",
        _has_fast_path,
    ),
    "torchvision.models.swin_transformer.ShiftedWindowAttention": Reader(("qkv", "proj"), MULTIPLIED, OTHERS),
    "torchvision.models.video.swin_transformer.ShiftedWindowAttention3d": Reader(("qkv", "proj"), MULTIPLIED, OTHERS),
    "timm.models.beit.Attention": Reader(("qkv",), MULTIPLIED, "Adapt proj.", _has_fused_bias),
    "timm.models.eva.EvaAttention": Reader(("qkv",), MULTIPLIED, "Adapt proj.", _has_fused_bias),
    "timm.models.swin_transformer_v2.WindowAttention": Reader(("qkv",), MULTIPLIED, "Adapt proj.", _has_fused_bias),
    # Models of transformers go by the name of the class alone: models with code of their own copy these classes.
    **dict.fromkeys(
        ("MambaMixer", "FalconMambaMixer"),
        Reader(("x_proj", "dt_proj", "out_proj", "conv1d"), FUSED, "Adapt in_proj."),
    ),
    **dict.fromkeys(
        (
            "Mamba2Mixer",
            "BambaMixer",
            "FalconH1Mixer",
            "GraniteMoeHybridMambaLayer",
            "NemotronHMamba2Mixer",
            "Zamba2MambaMixer",
        ),
        MAMBA_2,
    ),
    "JambaMambaMixer": Reader(("dt_proj", "conv1d"), MULTIPLIED, "Adapt in_proj, x_proj or out_proj."),
    "RwkvSelfAttention": Reader(
        ("output",), RESCALED, NO_RESCALING, lambda block: 0 < block.config.rescale_every <= block.layer_id
    ),
    "RwkvFeedForward": Reader(
        ("value",), RESCALED, NO_RESCALING, lambda block: 0 < block.config.rescale_every <= block.layer_id
    ),
    "BloomAttention": Reader(
        ("dense",),
        MULTIPLIED,
        "Load the model with slow_but_exact=False in its config.",
        lambda attention: attention.pretraining_tp > 1 and attention.slow_but_exact,
    ),
    "BloomMLP": Reader(
        ("dense_4h_to_h",),
        MULTIPLIED,
        "Load the model with slow_but_exact=False in its config.",
        lambda mlp: mlp.pretraining_tp > 1 and mlp.slow_but_exact,
    ),
    "Gemma3nTextAltUp": Reader(
        ("correction_coefs",),
        "clamped and multiplied with directly in training, when the layer is not called",
        OTHERS,
        lambda module: module.config.altup_coef_clip is not None,
    ),
    **dict.fromkeys(
        ("Gemma4AssistantForCausalLM", "Gemma4UnifiedAssistantForCausalLM"),
        Reader(("lm_head",), MULTIPLIED, OTHERS, lambda model: model.config.use_ordered_embeddings),
    ),
    "LSHSelfAttention": Reader(
        ("query_key", "value"), "multiplied with directly when text is generated", "Adapt attention.output.dense."
    ),
    **dict.fromkeys(
        ("DetrMHAttentionMap", "ConditionalDetrMHAttentionMap", "MaskFormerDetrMHAttentionMap"),
        Reader(("k_proj",), MULTIPLIED, "Adapt q_proj."),
    ),
    "DabDetrMHAttentionMap": Reader(("k_linear",), MULTIPLIED, "Adapt q_linear."),
    **dict.fromkeys(
        ("LayoutLMv2Encoder", "LayoutLMv3Encoder", "PPDocLayoutV2ReadingOrderEncoder"),
        Reader(("rel_pos_bias", "rel_pos_x_bias", "rel_pos_y_bias"), MULTIPLIED, OTHERS),
    ),
    "LongcatFlashTopkRouter": Reader(("classifier",), MULTIPLIED, OTHERS),
    "MobileBertLMPredictionHead": Reader(("dense", "decoder"), MULTIPLIED, OTHERS),
    "NeoMMEForMaskedLM": Reader(("unembedding_projection",), MULTIPLIED, OTHERS),
    "TDNNLayer": Reader(("kernel",), MULTIPLIED, OTHERS),
    "WavLMAttention": Reader(("q_proj", "k_proj", "v_proj", "out_proj"), MULTIPLIED, "Adapt the feed-forward layers."),
}
"""By the name of the class, with its module where the name alone is not telling. Subclasses count."""


def unfit_layers(model: nn.Module) -> dict[str, str]:
    """Layers of a model on which an adapter would have no effect, not always, or could not stand: name to reason.

    Known ones, and linear layers that return something else than their output. Nothing is run that costs anything.
    """
    unfit = {}
    for name, module in model.named_modules():
        for kind in type(module).__mro__:
            reader = READERS.get(kind.__name__) or READERS.get(f"{kind.__module__}.{kind.__qualname__}")
            if reader is not None and reader.when(module):
                for child in reader.layers:
                    if isinstance(getattr(module, child, None), nn.Module):
                        full_name = f"{name}.{child}" if name else child
                        unfit[full_name] = (
                            f"an adapter there would not act, or not always: in a {kind.__name__} its weight is "
                            f"{reader.how}. {reader.instead}"
                        )
        if isinstance(module, nn.Linear) and (found := _returned(module)) is not None:
            unfit[name] = (
                f"it is a {type(module).__name__}, which returns {found}, and an adapter adds to what a plain linear "
                "layer returns. Routers among experts are such layers."
            )
    return unfit


def check_targets(model: nn.Module, config: PeftConfig, *, strict: bool = True) -> None:
    """Check what a config of any method of PEFT's names in a model, which may lack its weights.

    Layers that `all-linear` means and on which an adapter would not act are put into exclude_modules, and logged.

    Args:
        model: without this adapter.
        config: for a new adapter.
        strict: whether every single one of target_modules must be there, which PEFT itself does not ask for.

    Raises: AdapterError for names, patterns and indices that match nothing, and for targets that are unfit.
    """
    names, targets = bridge.outside_adapters(model), getattr(config, "target_modules", None)
    is_all_linear = str(targets).lower() == bridge.INCLUDE_LINEAR_LAYERS_SHORTHAND
    if not is_all_linear:
        _check_names(model, names, targets, strict=strict)
    _check_further_modules(model, names, config)
    unfit = unfit_layers(model)
    targeted = [name for name in bridge.targeted_modules(model, config) if name in unfit]
    if targeted and is_all_linear:
        _leave_out(config, targeted)
        if not bridge.targeted_modules(model, config):
            raise AdapterError(f"all-linear finds no layer that it could adapt but {_named(targeted, unfit)}")
        for reason in dict.fromkeys(unfit[name] for name in targeted):
            same = [name for name in targeted if unfit[name] == reason]
            logger.warning("all-linear leaves out %s", _named(same, unfit))
    elif targeted:
        raise AdapterError(
            f"target_modules names {_named(targeted, unfit)} Leave it out of target_modules, or name it in "
            "exclude_modules."
        )
    _check_layers(model, config)
    _check_patterns(model, config)


def warn_of_unfit(model: nn.Module, config: PeftConfig) -> None:
    """Log layers on which an adapter that was trained elsewhere has no effect, or not always."""
    unfit = unfit_layers(model)
    if targeted := [name for name in bridge.targeted_modules(model, config) if name in unfit]:
        logger.warning("The adapter stands on %s", _named(targeted, unfit))


def linear_names(model: nn.Module, *, near: str) -> str:
    """Last parts of the linear layers' names, those that look most like `near` first."""
    found = {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    return ", ".join(sorted(found, key=lambda name: (-_likeness(near, name), name)))


def _returned(layer: nn.Linear) -> str | None:
    """What a linear layer with a forward pass of its own returns, in words; None for its output, or what is unknown."""
    if type(layer).forward is nn.Linear.forward or bridge.quantization_backend(layer) is not None:
        return None
    # Tried on tensors without memory or values, so nothing is computed and no random number drawn.
    on_meta: dict[int, Any] = {id(each): each.detach().to("meta") for each in layer.buffers()}
    on_meta |= {id(each): nn.Parameter(each.detach().to("meta"), requires_grad=False) for each in layer.parameters()}
    x = torch.empty(1, PROBE_ROWS, layer.in_features, dtype=layer.weight.dtype, device="meta")
    try:
        with torch.no_grad():
            output: Any = type(layer).forward(copy.deepcopy(layer, on_meta), x)
    except Exception:  # whatever a layer of unknown make does: it may need its own device
        return None
    if not isinstance(output, Tensor):
        return f"a {type(output).__name__}"
    if output.shape != (*x.shape[:-1], layer.out_features):
        return f"another shape than (..., {layer.out_features})"
    return None


def _check_names(model: nn.Module, names: Collection[str], targets: Any, *, strict: bool) -> None:
    if isinstance(targets, str):
        if not any(_matches("target_modules", targets, name) for name in names):
            raise AdapterError(_of_one_string("target_modules", targets, names, model))
    elif strict and (missing := sorted(end for end in targets or () if not any(_ends(name, end) for name in names))):
        raise AdapterError(
            f"target_modules names {missing[0]!r}, and the model has no such module; its linear layers are called "
            f"{linear_names(model, near=missing[0])}."
        )


def _check_further_modules(model: nn.Module, names: Collection[str], config: PeftConfig) -> None:
    """exclude_modules, modules_to_save and target_parameters."""
    excluded, saved = getattr(config, "exclude_modules", None), getattr(config, "modules_to_save", None)
    if isinstance(excluded, str):
        if not any(_matches("exclude_modules", excluded, name) for name in names):
            raise AdapterError(_of_one_string("exclude_modules", excluded, names))
    elif missing := sorted(end for end in excluded or () if not any(_ends(name, end) for name in names)):
        raise AdapterError(f"exclude_modules names {missing[0]!r}, and the model has no such module.")
    if isinstance(saved, str):
        raise AdapterError(f"modules_to_save must be a list; got {saved!r}. Write [{saved}].")
    by_peft = ADDED_BY_PEFT if config.task_type not in (None, "CAUSAL_LM") else set()
    for end in saved or ():
        if end not in by_peft and not any(name.endswith(end) for name in names):
            near = max(names, key=lambda name: _likeness(end, name.rsplit(".", 1)[-1]), default="")
            raise AdapterError(
                f"modules_to_save names {end!r}, and the model has no such module, so nothing would be trained or "
                f"saved for it. The nearest is {near!r}."
            )
    parameters = [name for name, _ in model.named_parameters()]
    for end in getattr(config, "target_parameters", None) or ():
        if not any(_ends(name, end) for name in parameters):
            raise AdapterError(f"target_parameters names {end!r}, and the model has no such parameter.")


def _check_layers(model: nn.Module, config: PeftConfig) -> None:
    """layers_to_transform: each index must adapt something, and each target must stand in a layer."""
    chosen = getattr(config, "layers_to_transform", None)
    if chosen is None or chosen == []:
        return
    of_all = bridge.targeted_modules(model, _with(config, layers_to_transform=None))
    indices = sorted({int(number) for name in of_all for number in re.findall(r"(?<=\.)\d+(?=\.)", name)[:1]})
    there = f"their layers are {indices[0]} to {indices[-1]}" if indices else "none of them is in a numbered layer"
    pattern = getattr(config, "layers_pattern", None)
    for index in chosen if isinstance(chosen, list) else [chosen]:
        if not bridge.targeted_modules(model, _with(config, layers_to_transform=[index])):
            raise AdapterError(
                f"layers_to_transform names layer {index}, in which target_modules has nothing"
                f"{f' by layers_pattern {pattern!r}' if pattern else ''}: {there}, counted from 0."
            )
    targets = getattr(config, "target_modules", None)
    for end in sorted(targets) if isinstance(targets, (list, set)) else ():
        alone = _with(config, target_modules={end})
        if any(_ends(name, end) for name in of_all) and not bridge.targeted_modules(model, alone):
            raise AdapterError(
                f"layers_to_transform leaves out {end!r}, which target_modules names, altogether: it is in none of "
                "the layers. Leave it out of target_modules, or write target_modules as one regular expression."
            )


def _check_patterns(model: nn.Module, config: PeftConfig) -> None:
    """rank_pattern and alpha_pattern, whose keys are the layers, or in LoRA parameters, that are adapted."""
    targeted, parameters = bridge.targeted_modules(model, config), getattr(config, "target_parameters", None) or ()
    ends = sorted({name.rsplit(".", 1)[-1] for name in targeted})
    targeted += [name for name, _ in model.named_parameters() if any(_ends(name, end) for end in parameters)]
    for option in ("rank_pattern", "alpha_pattern"):
        for key in getattr(config, option, None) or ():
            check_pattern(option, key)
            if not any(re.match(rf"(.*\.)?({key})$", name) for name in targeted):
                raise AdapterError(
                    f"{option} has a value for {key!r}, which is no layer that is adapted; those are called "
                    f"{', '.join(ends)}."
                )


def _of_one_string(option: str, pattern: str, names: Collection[str], model: nn.Module | None = None) -> str:
    """The sentence about a regular expression that matches no name, and was often meant as a name or some."""
    example = next((name for name in names if _ends(name, pattern)), max(names, key=len, default=""))
    parts = [part for part in re.split(r"[,\s]+", pattern.strip("[] ")) if part]
    if parts and all(any(_ends(name, part) for name in names) for part in parts):
        hint = f"Write a list: [{', '.join(parts)}]."
    else:
        linear = f"; the model's linear layers are called {linear_names(model, near=pattern)}" if model else ""
        hint = f"Write a list of last parts of names{linear}."
    return (
        f"{option} is the single string {pattern!r}, so it is a regular expression for whole names, such as "
        f"{example!r}, and it matches none. {hint}"
    )


def _matches(option: str, pattern: str, name: str) -> bool:
    check_pattern(option, pattern)
    return re.fullmatch(pattern, name) is not None


def _likeness(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


def _ends(name: str, end: str) -> bool:
    return f".{name}".endswith(f".{end}")


def _leave_out(config: PeftConfig, names: list[str]) -> None:
    excluded = getattr(config, "exclude_modules", None)
    if isinstance(excluded, str):
        config.exclude_modules = "|".join([f"(?:{excluded})", *map(re.escape, names)])
    else:
        config.exclude_modules = {*(excluded or ()), *names}


def _named(targeted: list[str], unfit: Mapping[str, str]) -> str:
    """The first of them with its reason, and how many more there are."""
    more = f" (and {len(targeted) - 1} more)" if len(targeted) > 1 else ""
    return f"{targeted[0]!r}{more}: {unfit[targeted[0]]}"


def _with(config: PeftConfig, **options: Any) -> PeftConfig:
    """A copy with other options."""
    other = copy.copy(config)
    for name, value in options.items():
        setattr(other, name, value)
    return other

"""PEFT configs by name, ours and PEFT's, and adapters put into models with errors that say what to do."""

from __future__ import annotations

import dataclasses
import difflib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from peft import PeftConfig, PeftModel, get_peft_model
from torch import nn

from qpeft.adapters import bridge, plugins
from qpeft.adapters.base.config import current_names, nearest_option
from qpeft.adapters.base.targets import check_targets, linear_names
from qpeft.adapters.bridge import BaseTunerLayer
from qpeft.adapters.qtha import QthaConfig
from qpeft.adapters.qtha.config import PRESETS as QTHA_PRESETS
from qpeft.adapters.quantum_weighted import CircuitBank
from qpeft.circuits import Circuit
from qpeft.errors import AdapterError, QpeftError

__all__ = ["PRESETS", "VARIANTS", "add_adapter", "build_config", "check_targets"]

PRESETS: dict[str, dict[str, Callable[..., PeftConfig]]] = {
    "qtha": {name: partial(QthaConfig.preset, name) for name in QTHA_PRESETS}
}

OPENQASM_INPUTS = "x"
"""Parameters of an OpenQASM program that are fed in with the data, as `Circuit.to_openqasm` calls them."""

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {"dora": ("lora", {"use_dora": True})}
"""Methods that PEFT has as an option of another one: its name, and what to set."""


def build_config(method: str, options: Mapping[str, Any]) -> PeftConfig:
    """The PEFT config of a method, from its name and fields.

    Args:
        method: one of `ADAPTERS` or `VARIANTS`, or any method that PEFT knows, in lower case.
        options: fields of its config; `preset` names one of `PRESETS` to start from.

    Raises: AdapterError for an unknown method, field or preset, naming the nearest, or for values the config refuses.
    """
    classes, (method, fixed) = bridge.config_classes(), VARIANTS.get(method, (method, {}))
    if method not in classes:
        plugins.check_loaded(method)
        raise AdapterError(f"There is no adapter type {method!r}{_nearest(method, [*classes, *VARIANTS])}")
    config_class = classes[method]
    fields = {**fixed, **current_names(config_class, options)}
    if isinstance(ansatz := fields.get("ansatz"), str) and ansatz.endswith(".qasm"):
        # Read here, for recipes, and not by the config: one that comes with an adapter could name any file here.
        fields["ansatz"] = Circuit.from_openqasm(Path(ansatz), inputs=[OPENQASM_INPUTS])
    make: Callable[..., PeftConfig] = config_class
    if (preset := fields.pop("preset", None)) is not None:
        presets = PRESETS.get(method, {})
        if preset not in presets:
            raise AdapterError(f"{method} has no preset {preset!r}; it has {', '.join(presets) or 'none'}.")
        make = presets[preset]
    known = [field.name for field in dataclasses.fields(config_class)]
    for name in fields:
        if name not in known:
            raise AdapterError(f"adapter type {method!r} has no option {name!r}{nearest_option(name, known)}")
    try:
        return make(**{"task_type": "CAUSAL_LM", **fields})
    except QpeftError:
        raise
    except (TypeError, ValueError) as error:
        raise AdapterError(f"adapter type {method!r} refuses these options: {error}") from error


def add_adapter(model: nn.Module, config: PeftConfig, **options: Any) -> PeftModel:
    """`get_peft_model` whose errors name the linear layers that there are, in the mode that the model is in.

    Raises: AdapterError, also for methods that train a prompt or attention of their own rather than layers, and as
    `check_targets`.
    """
    if not bridge.changes_layers(config):
        method = str(config.peft_type).rpartition(".")[2].lower()
        raise AdapterError(f"{method} changes no layers, and qpeft trains methods that do. PEFT and TRL can train it.")
    check_targets(model, config, strict=False)
    try:
        adapted = get_peft_model(model, config, **options)
    except QpeftError:
        raise
    except ValueError as error:
        targets = getattr(config, "target_modules", None)
        raise AdapterError(
            f"The adapter does not fit the model: target_modules {_show(targets)}; the model's linear layers are "
            f"called {linear_names(model, near=_show(targets))}. PEFT says: {' '.join(str(error).split())}"
        ) from error
    for layer in adapted.modules():
        if isinstance(layer, bridge.BaseTunerLayer):
            # PEFT's own stay in training mode, with their dropout, whatever the model is in.
            layer.train(layer.get_base_layer().training)
    adapted.training = adapted.base_model.training = model.training
    return adapted


def _show(targets: Any) -> str:
    if targets is None:
        return "not set"
    return repr(targets) if isinstance(targets, str) else ", ".join(sorted(targets))


def _nearest(name: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f". Known: {', '.join(sorted(names))}."


# What an adapter would add to a model, counted without weights.


@dataclass(frozen=True)
class LayerKind:
    """Adapted layers that share name, shape and number of trainable parameters; `count` of them.

    What all layers share has a kind of its own, without a shape and with a count of 0.
    """

    name: str
    in_features: int
    out_features: int
    parameters: int
    count: int


def count_layers(skeleton: nn.Module, config: PeftConfig) -> list[LayerKind]:
    """The kinds of layers that `config` adapts in a model on the meta device, which is changed by it.

    Raises: AdapterError if the config does not fit the model.
    """
    model = add_adapter(skeleton, config, low_cpu_mem_usage=True)
    # Circuits that make the weights of all layers live in the first of them, which has no more of them than the others.
    shared = {
        weight: name
        for module in model.modules()
        if isinstance(module, CircuitBank)
        for name, weight in module.named_parameters()
        if weight.requires_grad
    }
    kinds = Counter(
        (
            name.rsplit(".", 1)[-1],
            module.in_features,
            module.out_features,
            sum(weight.numel() for weight in module.parameters() if weight.requires_grad and weight not in shared),
        )
        for name, module in model.named_modules()
        if isinstance(module, BaseTunerLayer)
    )
    found = [LayerKind(*kind, count) for kind, count in kinds.items()]
    if shared:
        found.append(LayerKind("shared by all", 0, 0, sum(weight.numel() for weight in shared), 0))
    return found


def lora_parameters(kind: LayerKind, rank: int) -> int:
    """Parameters of LoRA of this rank on one such layer."""
    return rank * (kind.in_features + kind.out_features)

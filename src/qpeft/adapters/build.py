"""PEFT configs by name, ours and PEFT's, and adapters put into models with errors that say what to do."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from peft import PeftConfig, PeftModel, get_peft_model
from torch import nn

from qpeft.adapters import bridge, outside
from qpeft.adapters.base.config import nearest_option
from qpeft.adapters.qtha import QthaConfig
from qpeft.adapters.qtha.config import PRESETS as QTHA_PRESETS
from qpeft.errors import AdapterError, QpeftError

PRESETS: dict[str, dict[str, Callable[..., PeftConfig]]] = {
    "qtha": {name: partial(QthaConfig.preset, name) for name in QTHA_PRESETS}
}

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
        outside.check_loaded(method)
        raise AdapterError(f"There is no adapter type {method!r}{_nearest(method, [*classes, *VARIANTS])}")
    config_class = classes[method]
    fields = {**fixed, **options}
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
    """`get_peft_model` whose errors name the linear layers that there are.

    Raises: AdapterError, also for methods that train a prompt or attention of their own rather than layers.
    """
    if not bridge.changes_layers(config):
        method = str(config.peft_type).rpartition(".")[2].lower()
        raise AdapterError(f"{method} changes no layers, and qpeft trains methods that do. PEFT and TRL can train it.")
    try:
        return get_peft_model(model, config, **options)
    except QpeftError:
        raise
    except ValueError as error:
        targets = getattr(config, "target_modules", None)
        raise AdapterError(
            f"The adapter does not fit the model: target_modules {_show(targets)}; the model's linear layers are "
            f"called {_linear_names(model, near=_show(targets))}. PEFT says: {' '.join(str(error).split())}"
        ) from error


def check_targets(model: nn.Module, config: PeftConfig) -> None:
    """Raises: AdapterError if target_modules names something that the model, which may lack its weights, does not have.

    PEFT itself leaves out what it does not find, as long as it finds anything.
    """
    targets = getattr(config, "target_modules", None)
    if targets is None or str(targets).lower() == bridge.INCLUDE_LINEAR_LAYERS_SHORTHAND:
        return
    names = [name for name, _ in model.named_modules()]
    if isinstance(targets, str):
        missing = [] if any(_matches(targets, name) for name in names) else [targets]
    else:
        missing = sorted(end for end in targets if not any(f".{name}".endswith(f".{end}") for name in names))
    if missing:
        raise AdapterError(
            f"target_modules names {missing[0]!r}, and the model has no such module; its linear layers are called "
            f"{_linear_names(model, near=missing[0])}."
        )


def _matches(pattern: str, name: str) -> bool:
    try:
        return re.fullmatch(pattern, name) is not None
    except re.error as error:
        raise AdapterError(f"target_modules {pattern!r} is no regular expression: {error}.") from error


def _linear_names(model: nn.Module, *, near: str) -> str:
    """Last parts of the linear layers' names, those that look most like `near` first."""
    found = {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    return ", ".join(sorted(found, key=lambda name: (-difflib.SequenceMatcher(None, near, name).ratio(), name)))


def _show(targets: Any) -> str:
    if targets is None:
        return "not set"
    return repr(targets) if isinstance(targets, str) else ", ".join(sorted(targets))


def _nearest(name: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f". Known: {', '.join(sorted(names))}."

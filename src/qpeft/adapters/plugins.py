"""The table of adapter methods: ours, and those of other packages, found by entry points and checked.

A package names a module under the entry point group `qpeft.adapters`; the module calls `register_adapter`. Modules, and
not classes: whichever of the two packages a program imports first, the call comes when its classes are there.
"""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from qpeft.adapters import bridge
from qpeft.adapters.base import AbstractAdapterModel, AdapterConfig
from qpeft.errors import AdapterError

GROUP = "qpeft.adapters"

ADAPTERS: dict[str, tuple[type[AdapterConfig], type[AbstractAdapterModel]]] = {}
"""Every method by the name that recipes call it: its config and its tuner."""

FAILED: dict[str, str] = {}
"""Methods that were announced but could not be loaded, in lower case, and why."""


def register_adapter(name: str, config_class: type, model_class: type) -> None:
    """Make a method known to qpeft and to PEFT; once more with the same classes changes nothing.

    Args:
        name: lower case; recipes call the method so, and PEFT by its upper case.
        config_class: an `AdapterConfig`; sets `peft_type(name.upper())`, and has a default for every option.
        model_class: an `AbstractAdapterModel` of prefix name + "_", whose layers keep branches in name + "_branch".

    Raises: AdapterError, naming what does not fit, also for a name that is taken.
    """
    _check(name, config_class, model_class)
    try:
        bridge.register(name, config_class=config_class, model_class=model_class)
    except KeyError as error:
        raise AdapterError(f"The name {name!r} is taken: {error.args[0]}") from error
    ADAPTERS[name] = (config_class, model_class)


def load_plugins() -> None:
    """Import what other packages announce. One that fails is left out with a warning, and `FAILED` says why."""
    for entry in entry_points(group=GROUP):
        if reason := _load(entry):
            problem = f"{_package(entry)} announces it, but {reason}. Update that package or remove it."
            FAILED[entry.name.lower()] = problem
            warnings.warn(f"The adapter {entry.name!r} cannot be used: {problem}", stacklevel=2)


def check_loaded(name: str) -> None:
    """Raises: AdapterError if the method of this name was announced but could not be loaded."""
    if name in FAILED:
        raise AdapterError(f"The adapter {name!r} cannot be used: {FAILED[name]}")


def _load(entry: EntryPoint) -> str | None:
    """Why it cannot be used; None if it can."""
    # A program that imports the other package first is still at it, and the method comes at the end.
    is_under_way = entry.module in sys.modules
    try:
        import_module(entry.module)
    except Exception as error:  # whatever another package does, qpeft can be imported
        return f"{type(error).__name__}: {error}"
    return None if is_under_way or entry.name in ADAPTERS else f"{entry.module} registers no such adapter"


def _check(name: str, config_class: type, model_class: type) -> None:
    if not name.isidentifier() or name != name.lower() or name.endswith("_"):
        raise AdapterError(f"An adapter is called by a lower-case word, such as 'diagonal'; got {name!r}.")
    for given, needed in ((config_class, AdapterConfig), (model_class, AbstractAdapterModel)):
        if not (isinstance(given, type) and issubclass(given, needed)):
            raise AdapterError(f"Adapter {name!r} needs a class of {needed.__name__}; got {given!r}.")
    layer_class = getattr(model_class, "tuner_layer_cls", None)
    found = {
        "model_class.prefix": (getattr(model_class, "prefix", None), f"{name}_"),
        "adapter_layer_names of its layers": (getattr(layer_class, "adapter_layer_names", None), (f"{name}_branch",)),
        "peft_type of its config": (config_class().peft_type, name.upper()),
    }
    for what, (value, needed_value) in found.items():
        if value != needed_value:
            raise AdapterError(f"Adapter {name!r}: {what} must be {needed_value!r}; got {value!r}.")


def _package(entry: EntryPoint) -> str:
    return f"package {entry.dist.name}" if entry.dist else f"entry point {entry.value}"

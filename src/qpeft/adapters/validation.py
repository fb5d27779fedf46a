"""The folder of a saved adapter, checked before anything is made of it. Nothing in it is ever run or unpickled."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from peft import PeftConfig
from safetensors import SafetensorError, safe_open

from qpeft.adapters import ADAPTERS, bridge, plugins
from qpeft.adapters.base.config import current_names
from qpeft.errors import AdapterError

CONFIG, WEIGHTS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
FILES = (CONFIG, WEIGHTS)


def check_saved(folder: Path) -> None:
    """Raises: AdapterError for files that are missing, damaged or elsewhere, an unknown method, or odd options."""
    for name in FILES:
        _check_file(folder, name)
    config = _read_config(folder / CONFIG)
    method = config.get("peft_type")
    classes = bridge.config_classes()
    if not isinstance(method, str) or method.lower() not in classes:
        plugins.check_loaded(str(method).lower())
        raise AdapterError(
            f"The adapter in {folder} is of type {method!r}, which neither this qpeft nor its PEFT knows"
            f"{_nearest(str(method), (name.upper() for name in classes))}. Load it with the version that saved it."
        )
    if method.lower() in ADAPTERS:
        _check_options(folder, config, classes[method.lower()])
    _check_weights(folder / WEIGHTS)


def _check_file(folder: Path, name: str) -> None:
    file, home = folder / name, folder.resolve()
    if not file.is_file():
        pickled = f" {PICKLE} is a pickle, which can run code, and is never read." if (folder / PICKLE).exists() else ""
        raise AdapterError(
            f"{folder} holds no {name}: it is no folder of a trained adapter, or training was cut short.{pickled}"
        )
    # The cache of a model hub links each file of a snapshot to its blobs.
    homes = (home, home.parent.parent / "blobs") if home.parent.name == "snapshots" else (home,)
    if not any(file.resolve().is_relative_to(allowed) for allowed in homes):
        raise AdapterError(f"{file} leads out of its folder, to {file.resolve()}. Put the file itself in the folder.")


def _read_config(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise AdapterError(f"The adapter in {file.parent} cannot be loaded: {file.name} is no JSON: {error}") from error
    if not isinstance(config, dict):
        raise AdapterError(f"The adapter in {file.parent} cannot be loaded: {file.name} holds no options by name.")
    return config


def _check_options(folder: Path, config: dict[str, Any], config_class: type[PeftConfig]) -> None:
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    config = current_names(config_class, config)
    if unknown := sorted(config.keys() - fields.keys()):
        raise AdapterError(
            f"The adapter in {folder} has an option {unknown[0]!r} that {config_class.__name__} does not"
            f"{_nearest(unknown[0], fields)}. A newer qpeft has saved it: load it with that one."
        )
    of_peft = {field.name for field in dataclasses.fields(PeftConfig)}
    ours = {name for name, field in fields.items() if not field.metadata.get("added")} - of_peft
    if missing := sorted(ours - config.keys()):
        raise AdapterError(
            f"The adapter in {folder} lacks the option {missing[0]!r}, and its default may not be what it was trained "
            f"with. Restore {CONFIG} as it was saved."
        )


def _check_weights(file: Path) -> None:
    try:
        with safe_open(file, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118  (no mapping)
                if not weights.get_tensor(name).float().isfinite().all():
                    raise AdapterError(
                        f"The adapter in {file.parent} cannot be loaded: {name} holds NaN or infinite values. Its "
                        "training diverged; take an earlier checkpoint."
                    )
    except (SafetensorError, OSError) as error:
        raise AdapterError(f"The adapter in {file.parent} cannot be loaded: {file.name} is damaged: {error}") from error


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (nearest: {near[0]!r})" if near else ""

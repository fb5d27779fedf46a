"""QTHA layers of a model by name, and their circuits, whose evaluation is chosen at run time."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping

from torch import nn

from qpeft.adapters.qtha.branch import QthaBranch
from qpeft.adapters.qtha.layer import QthaLayer
from qpeft.adapters.qtha.middle import CircuitMiddle, Evaluate
from qpeft.errors import AdapterError


def qtha_layers(model: nn.Module, *, required: bool = True) -> dict[str, QthaLayer]:
    """Every QTHA layer by its full name. Raises: AdapterError if one is required and there is none."""
    found = {name: module for name, module in model.named_modules() if isinstance(module, QthaLayer)}
    if required and not found:
        raise AdapterError(
            "The model has no QTHA layer and no quantum-weighted adapter, and only these have circuits. In a recipe: "
            "adapter.type qtha or quantum_weighted, or no device section; in Python: get_peft_model(model, "
            "QthaConfig(...)) first."
        )
    return found


def put_elsewhere(chosen: Mapping[CircuitMiddle, Evaluate], layers: Iterable[QthaLayer]) -> None:
    """Let the chosen circuits be evaluated as said, and all others of these layers on the simulator."""
    for layer in layers:
        for _, middle in _middles("", layer):
            middle.evaluate_elsewhere(chosen.get(middle))


def circuits_of(layers: Mapping[str, QthaLayer]) -> Iterator[tuple[str, CircuitMiddle]]:
    """Circuits of every adapter of these layers, as "layer.adapter". Raises: AdapterError for a layer without any."""
    for name, layer in layers.items():
        middles = list(_middles(name, layer))
        if not middles:
            raise AdapterError(
                f"Layer {name!r} has no circuit: no adapter of it has middle='circuit' or 'frozen_circuit'."
            )
        yield from middles


def matching(layers: Mapping[str, QthaLayer], wanted: Iterable[str]) -> dict[str, QthaLayer]:
    """Layers whose full names are wanted, or end in what is wanted, part by part.

    Raises: AdapterError for a string in place of a list, an empty list, or a name that fits none, naming the nearest.
    """
    if isinstance(wanted, str):
        raise AdapterError(f"layers is a list of names; got the string {wanted!r}. Write layers=[{wanted!r}].")
    chosen: dict[str, QthaLayer] = {}
    for name in wanted:
        fits = {full: layer for full, layer in layers.items() if full == name or full.endswith(f".{name}")}
        if not fits:
            raise AdapterError(f"No QTHA layer is called {name!r}{_nearest(name, layers)}")
        chosen |= fits
    if not chosen:
        raise AdapterError(
            "layers names no layer; leave it out for every QTHA layer, or pass None, not a device or noise, for none."
        )
    return chosen


def _middles(name: str, layer: QthaLayer) -> Iterator[tuple[str, CircuitMiddle]]:
    for adapter, branch in layer.branches.items():
        assert isinstance(branch, QthaBranch)
        if isinstance(branch.middle, CircuitMiddle):
            yield f"{name}.{adapter}", branch.middle


def _nearest(name: str, layers: Iterable[str]) -> str:
    parts = [full.split(".") for full in layers]
    suffixes = sorted({".".join(part[first:]) for part in parts for first in range(len(part))}, key=len)
    near = difflib.get_close_matches(name, suffixes, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f". QTHA layers: {', '.join(layers)}."

"""What training saw of the circuits: the first and the last look at every layer, and what that means in words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

Health = Mapping[str, Any]
"""Of one run: `layers`, first and last value of every measure by layer, None if there is none; `warnings` by layer."""

MEASURES = {
    "angle_spread": "spread of input angles (radians)",
    "wrapped": "share of angles wrapped around",
    "variance": "variance of expectation values",
    "gradient_ratio": "gradients, circuit / tensor cores",
}
"""What is kept, and how a reader is told of it; docs/health.md explains them."""


def looks(health: Mapping[str, Any] | None) -> Health | None:
    """What a report needs of the health in a run's record; None without circuits."""
    if health is None:
        return None
    return {
        "layers": {
            layer: {name: _ends(_column(columns, name)) for name in MEASURES}
            for layer, columns in health["layers"].items()
        },
        "warnings": dict(health["warnings"]),
    }


def _column(columns: Mapping[str, Sequence[float | None]], name: str) -> Sequence[float | None]:
    if name != "gradient_ratio":
        return columns[name]
    pairs = zip(columns["circuit_gradient"], columns["core_gradient"], strict=True)
    # At first a fresh adapter's circuits have no gradient, which says nothing of their health.
    return [circuit / cores if circuit and cores else None for circuit, cores in pairs]


def _ends(values: Sequence[float | None]) -> list[float] | None:
    there = [value for value in values if value is not None]
    return [there[0], there[-1]] if there else None


def ends(seeds: Sequence[Health | None], measure: str) -> dict[str, list[list[float]]]:
    """First and last value of a measure in every seed, by layer from the model's first to its last."""
    found: dict[str, list[list[float]]] = {}
    for health in seeds:
        for layer, measured in health["layers"].items() if health else ():
            if measured[measure] is not None:
                found.setdefault(layer, []).append(measured[measure])
    return {layer: found[layer] for layer in sorted(found, key=_depth)}


def health_sentences(method: str, seeds: Sequence[Health | None]) -> list[str]:
    """How the circuits of a method did; nothing for a method without circuits."""
    seen = [health for health in seeds if health]
    if not seen:
        return []
    number = len({layer for health in seen for layer in health["layers"]})
    ill = sorted({layer for health in seen for layer in health["warnings"]}, key=_depth)
    state = (
        "no layer gave cause for a warning" if not ill else f"{len(ill)} of {number} layers gave cause for a warning"
    )
    found = [f"{method}: {state}. At the end, over {number} layers, {_ranges(seen)}."]
    for layer in ill:
        warnings = [health["warnings"][layer] for health in seen if layer in health["warnings"]]
        found.append(f"{method}, {layer}, in {len(warnings)} of {len(seen)} runs: {warnings[0]}")
    return found


def _ranges(seeds: Sequence[Health]) -> str:
    said = []
    for measure, label in MEASURES.items():
        if values := [last for pairs in ends(seeds, measure).values() for _, last in pairs]:
            said.append(f"{label}: {min(values):.2g} to {max(values):.2g}")
    return "; ".join(said)


def _depth(layer: str) -> tuple[tuple[int, ...], str]:
    """Sorts layers as they follow one another in the model."""
    return tuple(int(number) for number in re.findall(r"\d+", layer)), layer

"""How circuits did in training: the first and the last look at every layer, and what that means in words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

Health = Mapping[str, Any]
"""Of one run: `layers`, first and last value of every measure by layer, None without any; `warnings` by layer."""

MEASURES = {
    "angle_spread": "spread of input angles (radians)",
    "wrapped": "share of angles wrapped around",
    "variance": "variance of expectation values",
    "gradient_ratio": "gradients, circuit / tensor cores",
}
"""The measures that are kept, and their names for a reader; docs/health.md explains them."""
IN_FULL = 4
"""Warnings of a method that are quoted; of further layers only the names."""


def looks(health: Mapping[str, Any] | None) -> Health | None:
    """Return what a report needs of the health in a run's record; None without circuits."""
    if health is None:
        return None
    layers: dict[str, dict[str, list[float] | None]] = {}
    for layer, columns in health["layers"].items():
        # At first a fresh adapter's circuits have no gradient, which says nothing of their health.
        pairs = zip(columns["circuit_gradient"], columns["core_gradient"], strict=True)
        ratios = [circuit / cores if circuit and cores else None for circuit, cores in pairs]
        layers[layer] = {}
        for name in MEASURES:
            values = [v for v in (ratios if name == "gradient_ratio" else columns[name]) if v is not None]
            layers[layer][name] = [values[0], values[-1]] if values else None
    return {"layers": layers, "warnings": dict(health["warnings"])}


def ends(seeds: Sequence[Health | None], measure: str) -> dict[str, list[list[float]]]:
    """Return first and last value of a measure in every seed, by layer from the model's first to its last."""
    found: dict[str, list[list[float]]] = {}
    for health in seeds:
        for layer, measured in health["layers"].items() if health else ():
            # A layer that never had a gradient has no such measure.
            if measured[measure] is not None:
                found.setdefault(layer, []).append(measured[measure])
    return {layer: found[layer] for layer in sorted(found, key=_depth)}


def ranges(seeds: Sequence[Health | None]) -> dict[str, str]:
    """Return the smallest and largest last value over layers and seeds of every measure, by its label."""
    found = {}
    for measure, label in MEASURES.items():
        # What training left, not what it began with.
        last = [pair[1] for pairs in ends(seeds, measure).values() for pair in pairs]
        found[label] = f"{min(last):.2g} to {max(last):.2g}" if last else "not trained"
    return found


def warned_of(seeds: Sequence[Health | None]) -> dict[str, list[str]]:
    """Return the warnings of every layer that has any, one for each seed with it, from the model's first layer on."""
    found: dict[str, list[str]] = {}
    for health in seeds:
        for layer, problem in health["warnings"].items() if health else ():
            found.setdefault(layer, []).append(problem)
    return {layer: found[layer] for layer in sorted(found, key=_depth)}


def health_sentences(method: str, seeds: Sequence[Health | None]) -> list[str]:
    """Return the warnings of a method's layers, the first few in full."""
    # Runs without circuits cannot be warned of, so they do not count.
    runs, ill = sum(health is not None for health in seeds), warned_of(seeds)
    found = [
        f"{method}, {layer}, in {len(problems)} of {runs} runs: {problems[0]}"
        for layer, problems in list(ill.items())[:IN_FULL]
    ]
    if rest := list(ill)[IN_FULL:]:
        found.append(f"{method}, warned of as well: {', '.join(rest)}.")
    return found


def _depth(layer: str) -> tuple[tuple[int, ...], str]:
    """Return a key that sorts layers as they follow one another in the model: layer 10 after layer 9."""
    return tuple(int(number) for number in re.findall(r"\d+", layer)), layer

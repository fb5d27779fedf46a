"""Metrics of answers that a task graded: of every method by itself, and against the reference."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qpeft.evaluation.statistics import Array, Difference, holm, mean_interval, paired_difference, sign_test
from qpeft.evaluation.tasks import TASKS


@dataclass(frozen=True)
class Graded:
    """One metric of the answers of a method, in [0, 1].

    `sums`: grades added up over the answers to each example, (seeds, examples). `counts`: answers to each, (examples,).
    `value`: mean over answers. `against`: the same minus the reference's, or None; `p`: exact sign test of no
    difference over examples, corrected for the number of methods and metrics.
    """

    metric: str
    title: str
    sums: Array
    counts: Array
    value: Difference
    against: Difference | None = None
    p: float | None = None


def graded(scores: Sequence[Mapping[str, Any]]) -> tuple[Graded, ...]:
    """Return every metric of a method's answers.

    Args:
        scores: as `Scores.to_dict` gives them, for each seed.

    Returns:
        In the order of the task. Empty without answers to two examples, from which nothing can be told of others.
    """
    # Scores from before there were tasks have right and wrong answers alone.
    grades: list[Mapping[str, Sequence[float]]] = [
        one["items"].get("grades", {"exact_match": one["items"]["right"]} if one["items"]["right"] else {})
        for one in scores
    ]
    task = TASKS.get(scores[0].get("task") or "")
    titles = {name: task.metrics[name] if task else "exact match" for name in grades[0]}
    # Turns of one dialogue belong to one example: examples are what can be drawn anew, and turns are not.
    places = np.array(scores[0]["items"].get("examples", range(scores[0]["answered"])), dtype=int)
    counts = np.bincount(places).astype(float) if len(places) else np.zeros(0)
    if len(counts) < 2:
        return ()
    found = []
    for metric, title in titles.items():
        sums = np.array([np.bincount(places, weights=one[metric]) for one in grades])
        found.append(Graded(metric, title, sums, counts, mean_interval(sums, counts)))
    return tuple(found)


def overall(scores: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return metrics of all answers together, by their titles: means over seeds."""
    task = TASKS.get(scores[0].get("task") or "")
    titles = task.overall_metrics if task is not None and scores[0]["answered"] else {}
    return {title: statistics.fmean(one["metrics"][name] for one in scores) for name, title in titles.items()}


def metrics_by_title(scores: Mapping[str, Any]) -> dict[str, float]:
    """Return all metrics of one model's answers; none for scores from before there were tasks."""
    task = TASKS.get(scores.get("task") or "")
    titles = {} if task is None else {**task.overall_metrics, **task.metrics}
    return {title: scores["metrics"][name] for name, title in titles.items() if name in scores["metrics"]}


def with_comparisons(
    methods: Mapping[str, Sequence[Graded]], reference: Sequence[Graded]
) -> dict[str, tuple[Graded, ...]]:
    """Return the metrics of all methods with their differences from the reference, which has the same ones."""
    pairs = [(name, one, other) for name, found in methods.items() for one, other in zip(found, reference, strict=True)]
    # All methods and metrics together: each is one more chance to find something by accident.
    corrected = holm([sign_test((one.sums - other.sums).mean(0)) for _, one, other in pairs])
    compared: dict[str, tuple[Graded, ...]] = dict.fromkeys(methods, ())
    for (name, one, other), p in zip(pairs, corrected, strict=True):
        difference = paired_difference(one.sums, other.sums, one.counts)
        compared[name] += (replace(one, against=difference, p=p),)
    return compared

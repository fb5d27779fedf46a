"""The report of a study: one HTML file that needs nothing else, the same in Markdown, and its figures as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from qpeft.comparison import words
from qpeft.comparison.figures import pictures
from qpeft.comparison.ledger import Ledger
from qpeft.comparison.results import Measured, Results
from qpeft.comparison.statistics import Difference
from qpeft.runs import make_folder, write_atomically

HTML, MARKDOWN, NUMBERS = "report.html", "report.md", "results.json"


def write_report(results: Results, ledger: Ledger, html: Path | None = None) -> Path:
    """Write report.html, report.md and results.json into the study's folder; the place of the first.

    Args:
        results: what was found.
        ledger: what happened to the study.
        html: another place for the HTML file.

    Raises: OutputError if a file cannot be written.
    """
    context = _context(results, ledger)
    html = html or ledger.folder / HTML
    make_folder(html.parent)
    write_atomically(html, _render("report.html.j2", context | {"pictures": pictures(results)}))
    write_atomically(ledger.folder / MARKDOWN, _render("report.md.j2", context))
    write_atomically(ledger.folder / NUMBERS, json.dumps(numbers(results), indent=2, ensure_ascii=False) + "\n")
    return html


def numbers(results: Results) -> dict[str, Any]:
    """All figures of the results that a program may want, without those of single items."""
    return {
        "base": {"loss": results.base, "neutral": results.base_neutral, "metrics": dict(results.base_metrics)},
        "items": results.num_items,
        "tokens": results.num_tokens,
        "gaps": list(results.gaps),
        "choices": [asdict(choice) | {"at_edge": choice.is_at_edge} for choice in results.choices],
        "methods": [
            {name: value for name, value in asdict(one).items() if name not in ("nats", "right", "histories", "graded")}
            | {"exact_match": one.exact_match, "graded": [metric.to_dict() for metric in one.graded]}
            for one in results.measured
        ],
    }


def _context(results: Results, ledger: Ledger) -> dict[str, Any]:
    """What both templates speak of: text in every cell, nothing left to compute."""
    study, values = results.study, ledger.values
    reference = next((one for one in results.measured if one.method == study.reference), None)
    return {
        "study": study,
        "headline": words.headline(results),
        "sentences": [words.sentence(one, results) for one in results.measured if one.against],
        "ablations": [line for one in results.measured for line in words.ablation_sentences(one)],
        "limits": words.limits(results, values),
        "gaps": results.gaps,
        "judged_by": study.test or "the held-out tenth of the training file",
        "num_items": f"{results.num_items:,}",
        "num_tokens": f"{results.num_tokens:,}",
        "held_out": f"{results.num_chosen_by:,}",
        "base": None if results.base is None else f"{results.base:.4f}",
        "losses": [_loss_row(one, reference) for one in results.measured],
        "costs": [_cost_row(one, results.base_neutral) for one in results.measured],
        "has_answers": any(one.right is not None for one in results.measured),
        "answers": _base_answers(results) + [row for one in results.measured for row in _answer_rows(one)],
        "rates": [_rate_row(choice.method, choice.rate, choice.losses) for choice in results.choices],
        "samples": _samples(results),
        "yaml": yaml.safe_dump(values["study"], sort_keys=False, allow_unicode=True),
        "digest": values["digest"],
        "hashes": values["inputs"]["hashes"],
        "versions": ", ".join(f"{name} {number}" for name, number in values["inputs"]["versions"].items()),
        "machine": f"{values['environment']['platform']}, {values['environment']['processors']} processors",
        "begun": values["begun"],
        "test_readings": values["test_readings"],
    }


def _loss_row(one: Measured, reference: Measured | None) -> dict[str, str]:
    against = one.against
    share = "" if reference is None else f"{one.parameters / reference.parameters:.0%}"
    return {
        "method": one.method,
        "parameters": f"{one.parameters:,}",
        "share": share,
        "loss": words.interval(one.loss),
        "difference": "reference" if against is None else words.signed(against.loss),
        "verdict": "" if against is None else against.verdict,
        "p": "" if against is None else words.p_value(against.p),
        "seeds": "" if against is None else f"{against.worse_seeds} of {len(against.loss.per_seed)}",
        "detectable": "" if against is None else f"{against.loss.detectable:.4f}",
        "exact_match": "" if one.exact_match is None else f"{one.exact_match:.1%}",
    }


def _base_answers(results: Results) -> list[dict[str, str]]:
    """Every metric of the model without an adapter, where there are several."""
    if len(results.base_metrics) < 2:
        return []
    rest = dict.fromkeys(("difference", "p"), "")
    return [
        {"method": "without adapter", "metric": title, "value": f"{100 * value:.1f}"} | rest
        for title, value in results.base_metrics.items()
    ]


def _answer_rows(one: Measured) -> list[dict[str, str]]:
    """Every metric of a method's answers; nothing where there is one, which stands beside the loss."""
    if len(one.graded) < 2:
        return []
    together = [
        {"method": one.method, "metric": title, "value": f"{100 * value:.1f}"} | dict.fromkeys(("difference", "p"), "")
        for title, value in one.overall.items()
    ]
    return together + [
        {
            "method": one.method,
            "metric": metric.title,
            "value": _percent(metric.value),
            "difference": "reference" if metric.against is None else words.signed(metric.against.times(100), 1),
            "p": "" if metric.p is None else words.p_value(metric.p),
        }
        for metric in one.graded
    ]


def _percent(value: Difference) -> str:
    """Where all answers are alike, nothing varies that an interval could come from."""
    alike = value.low == value.high
    return f"{100 * value.estimate:.1f}, all alike" if alike else words.interval(value.times(100), 1)


def _cost_row(one: Measured, base_neutral: float | None) -> dict[str, str]:
    return {
        "method": one.method,
        "parameters": f"{one.parameters:,}",
        "bytes": f"{one.adapter_bytes / 1024:,.0f} KiB",
        "seconds": "not known" if one.seconds_per_step is None else f"{one.seconds_per_step:.2f} s",
        "memory": f"{one.peak_memory / 2**20:,.0f} MiB",
        "forgetting": "not known" if base_neutral is None else f"{one.neutral - base_neutral:+.4f}",
    }


def _rate_row(method: str, chosen: float | None, losses: dict[float, tuple[float | None, ...]]) -> dict[str, Any]:
    cells = []
    for rate, row in losses.items():
        there = [loss for loss in row if loss is not None]
        mean = f"{sum(there) / len(there):.4f}" if there else "no run"
        missing = f", {len(row) - len(there)} missing" if there and len(there) < len(row) else ""
        cells.append({"rate": f"{rate:g}", "text": mean + missing, "chosen": rate == chosen})
    return {"method": method, "cells": cells}


def _samples(results: Results) -> list[dict[str, Any]]:
    """Questions of the first seed, with the answer of every method side by side."""
    if not results.measured or not results.measured[0].samples:
        return []
    return [
        {
            "question": sample["question"],
            "expected": sample["expected"],
            "answers": [(one.method, one.samples[number]) for one in results.measured],
        }
        for number, sample in enumerate(results.measured[0].samples)
    ]


def _render(template: str, context: dict[str, Any]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415

    environment = Environment(
        loader=PackageLoader("qpeft.comparison"),
        autoescape=template.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(context)

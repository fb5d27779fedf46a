"""The report of a study: one HTML file that needs nothing else, the same in Markdown, and its records as JSON."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from qpeft.comparison import summary_text, tables
from qpeft.comparison.circuit_figures import circuit_pictures
from qpeft.comparison.circuit_health import health_sentences
from qpeft.comparison.figures import differences, pictures, rates_picture
from qpeft.comparison.records import from_record, to_record
from qpeft.comparison.results import Results
from qpeft.comparison.study_log import StudyLog
from qpeft.comparison.svg import DARK, LIGHT
from qpeft.runs import make_folder, write_atomically

HTML, MARKDOWN, RECORDS = "report.html", "report.md", "results.json"


def write_report(results: Results, log: StudyLog, html: Path | None = None) -> Path:
    """Write report.html, report.md and results.json into the study's folder, and return the place of the first.

    Args:
        results: what was found.
        log: what happened to the study.
        html: another place for the HTML file.

    Raises: OutputError if a file cannot be written.
    """
    record = to_record(results, log)
    # From what the records hold, so that nothing stands in the report that they do not.
    results, redacted = from_record(record, log.folder)
    write_atomically(log.folder / RECORDS, json.dumps(record, ensure_ascii=False) + "\n")
    write_atomically(log.folder / MARKDOWN, _render("report.md.j2", _context(results, redacted.values)))
    return write_page(results, redacted, html or log.folder / HTML)


def write_page(results: Results, log: StudyLog, html: Path) -> Path:
    """Write the HTML file alone, of results that come from records, and return its place.

    Args:
        results: what was found.
        log: what happened to the study.
        html: the file.

    Raises: OutputError.
    """
    drawn = {
        "first_picture": differences(results),
        "pictures": pictures(results),
        "circuits": circuit_pictures(results),
        "rates_picture": rates_picture(results),
        "light": LIGHT,
        "dark": DARK,
    }
    make_folder(html.parent)
    write_atomically(html, _render("report.html.j2", _context(results, log.values) | drawn))
    return html


def _context(results: Results, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what both templates speak of: text in every cell, nothing left to compute."""
    study, environment = results.study, values["environment"]
    gaps_by_reason: dict[str, list[str]] = {}
    for gap in results.gaps:
        what, _, reason = gap.partition(": ")
        gaps_by_reason.setdefault(reason, []).append(what)
    # Several machines may have trained runs of one study.
    devices = ", ".join(sorted({one.device for one in results.measured}))
    trained = f"; trained on {devices}" if devices else ""
    return {
        "study": study,
        "facts": summary_text.facts(results, values),
        "findings": summary_text.findings(results),
        "caution": summary_text.caution(results),
        "headline": summary_text.headline(results),
        "lead": summary_text.lead(results),
        "sentences": summary_text.sentences(results),
        "ablations": tables.ablations(results),
        "limits": summary_text.limits(results, values),
        "gaps": results.gaps,
        "gaps_by_reason": gaps_by_reason,
        "judged_by": study.test or "the held-out tenth of the training file",
        "num_items": f"{results.num_items:,}",
        "num_tokens": f"{sum(results.tokens):,}",
        "held_out": f"{results.num_chosen_by:,}",
        "base": None if results.base is None else f"{results.base:.4f}",
        "losses": tables.losses(results),
        "contrasts": tables.contrasts(results),
        "answers": tables.answers(results),
        "costs": tables.costs(results),
        "rates": tables.learning_rates(results),
        "health": tables.health(results),
        "warnings": [line for one in results.measured for line in health_sentences(one.method, one.health)],
        "samples": tables.samples(results),
        "yaml": yaml.safe_dump(study.model_dump(mode="json", exclude={"output"}), sort_keys=False, allow_unicode=True),
        "digest": values["digest"],
        "hashes": values["inputs"]["hashes"],
        "versions": ", ".join(f"{name} {number}" for name, number in values["inputs"]["versions"].items()),
        "machine": f"{environment['platform']}, {environment['processors']} processors{trained}",
        "command": shlex.join(environment["command"]),
        "begun": values["begun"],
        "test_readings": values["test_readings"],
    }


def _render(template: str, context: dict[str, Any]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415

    environment = Environment(
        loader=PackageLoader("qpeft.comparison"),
        # Names and answers are anybody's text: in HTML they must not become tags.
        autoescape=template.endswith(".html.j2"),
        undefined=StrictUndefined,  # a misspelt name is an error and not a gap in the page
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["code"] = _code
    return environment.get_template(template).render(context)


def _code(text: str) -> str:
    """Return text of a model as one line of code in Markdown, so that none of its signs is taken for markup."""
    line = " ".join(text.split()) or "(nothing)"
    # A fence longer than any run of backticks inside closes where it should.
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    return f"{fence} {line} {fence}" if "`" in line else f"{fence}{line}{fence}"

"""Results as JSON and back: one file from which the report can be written again, without adapters and without runs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from qpeft.comparison.results import Against, Contrast, Measured, Results
from qpeft.comparison.study import Study
from qpeft.comparison.study_log import StudyLog
from qpeft.comparison.trials import Choice
from qpeft.errors import OutputError, QpeftError
from qpeft.evaluation.metrics import Graded
from qpeft.evaluation.statistics import Difference
from qpeft.training.config import parse

FORMAT = 1
FOLDERS = re.compile(r"""(?:file://|(?<![\w./\\})]))(?:[A-Za-z]:[\\/]|/)(?:[^\s/\\'"<>|:,;]+[\\/])+""")
"""All but the last part of an absolute path inside a text; addresses of the web and relative paths do not match."""


def to_record(results: Results, log: StudyLog) -> dict[str, Any]:
    """Return everything that a report is made of, and the figures of single items that its statistics are made of.

    No path of this machine is in it.
    """
    measured = [
        asdict(one)
        | {
            # Five digits are far below what any interval resolves, and halve the file.
            "nats": one.nats.round(5).tolist(),
            "right": None if one.right is None else one.right.astype(int).tolist(),
            "graded": [
                asdict(metric) | {"sums": metric.sums.tolist(), "counts": metric.counts.tolist()}
                for metric in one.graded
            ],
            "exact_match": one.exact_match,
        }
        for one in results.measured
    ]
    found = asdict(results) | {
        "format": FORMAT,
        "study": results.study.model_dump(mode="json", exclude={"output"}),
        "ledger": {name: value for name, value in log.values.items() if name != "study"},
        "choices": [asdict(choice) | {"at_edge": choice.is_at_edge} for choice in results.choices],
        "measured": measured,
    }
    # Written and read, so that a report of this process holds what that of a file will.
    record: dict[str, Any] = json.loads(json.dumps(found))
    return record | {name: redact_paths(record[name]) for name in ("study", "ledger", "choices", "gaps", "missing")}


def from_record(record: Mapping[str, Any], folder: Path) -> tuple[Results, StudyLog]:
    """Return what `to_record` was given; the study's folder is the one given here.

    Raises: LookupError, TypeError, ValueError or AttributeError for a record that lacks something.
    """
    study = parse(Study, record["study"] | {"output": {"folder": str(folder)}}, source="records")
    measured = []
    for values in record["measured"]:
        graded = [
            Graded(
                **dict(metric)
                | {
                    "sums": np.array(metric["sums"], dtype=float),
                    "counts": np.array(metric["counts"], dtype=float),
                    "value": _difference(metric["value"]),
                    "against": None if metric["against"] is None else _difference(metric["against"]),
                }
            )
            for metric in values["graded"]
        ]
        changed = {
            "nats": np.array(values["nats"], dtype=float),
            "right": None if values["right"] is None else np.array(values["right"], dtype=float),
            "loss": _difference(values["loss"]),
            "ablations": {name: _difference(loss) for name, loss in values["ablations"].items()},
            "against": None if values["against"] is None else _against(values["against"]),
            # JSON has no tuples.
            **{name: tuple(values[name]) for name in ("histories", "health", "samples")},
            "graded": tuple(graded),
        }
        # `exact_match` is for readers of the file; a `Measured` computes it.
        measured.append(Measured(**{name: one for name, one in values.items() if name != "exact_match"} | changed))
    results = Results(
        study,
        tuple(
            # JSON has texts alone for keys.
            Choice(one["method"], {float(rate): tuple(row) for rate, row in one["losses"].items()}, one["rate"],
                   tuple(one["gaps"]), {float(rate): how for rate, how in one.get("dropped", {}).items()})
            for one in record["choices"]
        ),
        tuple(measured),
        record["base"],
        record["base_neutral"],
        tuple(record["base_samples"]),
        tuple(record["gaps"]),
        record["missing"],
        tuple(record["tokens"]),
        record["num_chosen_by"],
        record["base_metrics"],
        tuple(
            Contrast(one["method"], one["other"], _against(one["against"]))
            for one in record.get("contrasts", ())  # records from before there were any
        ),
    )  # fmt: skip
    # Looked at here, so that a damaged record is an error in one sentence and not in the midst of a template.
    values = record["ledger"]
    inputs, environment = values["inputs"], values["environment"]
    texts = [values["digest"], values["begun"], environment["platform"], *environment["command"]]
    texts += [*inputs["hashes"].values(), *inputs["versions"].values(), environment["processors"]]
    texts += [reading["when"] for reading in values["test_readings"]]
    for change in values["amendments"]:
        texts += [change["when"], *change["changed"], change["test_readings_before"]]
    if not all(isinstance(text, (str, int)) for text in texts):
        raise TypeError("its ledger has something other than words and numbers")
    return results, StudyLog(folder, dict(values) | {"study": record["study"]})


def read_records(path: Path) -> tuple[Results, StudyLog]:
    """Return the results in a file. Raises: OutputError if it holds none."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(f"{path} cannot be read: {error}.") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise OutputError(f"{path} holds no records of a study of format {FORMAT}. Take its results.json.")
    try:
        return from_record(record, path.parent)
    except QpeftError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise OutputError(
            f"{path} is damaged: {type(error).__name__} {error}. Write it again with qpeft report."
        ) from error


def _difference(values: Mapping[str, Any]) -> Difference:
    return Difference(**dict(values) | {"per_seed": tuple(values["per_seed"])})


def _against(values: Mapping[str, Any]) -> Against:
    return Against(**dict(values) | {"loss": _difference(values["loss"])})


def redact_paths(value: Any) -> Any:
    """Return the same value with absolute paths, in texts and in keys, cut to their last part.

    A report tells of a study, not of the disk that it was made on.
    """
    if isinstance(value, str):
        return _redacted(value)
    if isinstance(value, Mapping):
        found: dict[str, Any] = {}
        for key, inner in value.items():
            name = _redacted(key)
            while name in found:  # files of one name in two folders stay two
                name += "'"
            found[name] = redact_paths(inner)
        return found
    if isinstance(value, list | tuple):
        return [redact_paths(inner) for inner in value]
    return value


def _redacted(text: str) -> str:
    # A text that is a path as a whole may hold spaces, which end a path inside a sentence.
    path = PureWindowsPath(text) if "\\" in text else PurePosixPath(text)
    if path.is_absolute() and len(path.parts) > 2 and "\n" not in text and len(text) < 300 and ": " not in text:
        return path.name
    return FOLDERS.sub("", text)

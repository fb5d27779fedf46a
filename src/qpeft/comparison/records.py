"""Results as JSON and back: one file from which the report can be written again, without adapters and without runs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from qpeft.comparison.graded import Graded
from qpeft.comparison.results import Against, Contrast, Measured, Results
from qpeft.comparison.statistics import Difference
from qpeft.comparison.study import Study
from qpeft.comparison.study_log import StudyLog
from qpeft.comparison.trials import Choice
from qpeft.errors import OutputError, QpeftError
from qpeft.training.config import parse

FOLDERS = re.compile(r"""(?:file://|(?<![\w./\\})]))(?:[A-Za-z]:[\\/]|/)(?:[^\s/\\'"<>|:,;]+[\\/])+""")
"""Of an absolute path inside a text, all but the last part; addresses of the web and relative paths do not match."""


def redact_paths(value: Any) -> Any:
    """The same value with absolute paths, in texts and in keys, cut to their last part."""
    if isinstance(value, str):
        return _without_folders(value)
    if isinstance(value, Mapping):
        found: dict[str, Any] = {}
        for key, inner in value.items():
            name = _without_folders(key)
            while name in found:  # files of one name in two folders stay two
                name += "'"
            found[name] = redact_paths(inner)
        return found
    if isinstance(value, list | tuple):
        return [redact_paths(inner) for inner in value]
    return value


def _without_folders(text: str) -> str:
    path = PureWindowsPath(text) if "\\" in text else PurePosixPath(text)
    if path.is_absolute() and len(path.parts) > 2 and "\n" not in text and len(text) < 300 and ": " not in text:
        return path.name
    return FOLDERS.sub("", text)


FORMAT = 1


def to_record(results: Results, ledger: StudyLog) -> dict[str, Any]:
    """Everything that a report is made of, and the figures of single items that its statistics are made of.

    Nothing in it names a place on this machine.
    """
    found = asdict(results) | {
        "format": FORMAT,
        "study": results.study.model_dump(mode="json", exclude={"output"}),
        "ledger": {name: value for name, value in ledger.values.items() if name != "study"},
        "choices": [asdict(choice) | {"at_edge": choice.is_at_edge} for choice in results.choices],
        "measured": [_measured_values(one) for one in results.measured],
    }
    record: dict[str, Any] = json.loads(json.dumps(found))
    return record | {name: redact_paths(record[name]) for name in ("study", "ledger", "choices", "gaps", "missing")}


def from_record(record: Mapping[str, Any], folder: Path) -> tuple[Results, StudyLog]:
    """What `to_record` was given; the study's folder is the one given here."""
    study = parse(Study, record["study"] | {"output": {"folder": str(folder)}}, source="records")
    results = Results(
        study,
        tuple(_choice(values) for values in record["choices"]),
        tuple(_measured(values) for values in record["measured"]),
        record["base"],
        record["base_neutral"],
        tuple(record["base_samples"]),
        tuple(record["gaps"]),
        record["missing"],
        tuple(record["tokens"]),
        record["num_chosen_by"],
        record["base_metrics"],
        tuple(_contrast(values) for values in record.get("contrasts", ())),  # records from before there were any
    )
    return results, StudyLog(folder, _ledger_values(record["ledger"]) | {"study": record["study"]})


def read_records(path: Path) -> tuple[Results, StudyLog]:
    """The results in a file. Raises: OutputError if it holds none."""
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


def _measured_values(one: Measured) -> dict[str, Any]:
    return asdict(one) | {
        # Five digits are far below what any interval resolves, and halve the file.
        "nats": one.nats.round(5).tolist(),
        "right": None if one.right is None else one.right.astype(int).tolist(),
        "graded": [
            asdict(metric) | {"sums": metric.sums.tolist(), "counts": metric.counts.tolist()} for metric in one.graded
        ],
        "exact_match": one.exact_match,
    }


def _ledger_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """As they are, if everything is there that a report says of how a study came about.

    Raises: LookupError, TypeError or AttributeError for what is not there or is something else.
    """
    inputs, environment = values["inputs"], values["environment"]
    texts = [values["digest"], values["begun"], environment["platform"], *environment["command"]]
    texts += [*inputs["hashes"].values(), *inputs["versions"].values(), environment["processors"]]
    texts += [reading["when"] for reading in values["test_readings"]]
    for change in values["amendments"]:
        texts += [change["when"], *change["changed"], change["test_readings_before"]]
    if not all(isinstance(text, (str, int)) for text in texts):
        raise TypeError("its ledger has something other than words and numbers")
    return dict(values)


def _choice(values: Mapping[str, Any]) -> Choice:
    losses = {float(rate): tuple(row) for rate, row in values["losses"].items()}
    return Choice(values["method"], losses, values["rate"], tuple(values["gaps"]))


def _contrast(values: Mapping[str, Any]) -> Contrast:
    return Contrast(values["method"], values["other"], _against(values["against"]))


def _against(values: Mapping[str, Any]) -> Against:
    return Against(**dict(values) | {"loss": _difference(values["loss"])})


def _measured(values: Mapping[str, Any]) -> Measured:
    against, right = values["against"], values["right"]
    kept = {name: value for name, value in values.items() if name != "exact_match"}
    return Measured(
        **kept
        | {
            "nats": np.array(values["nats"], dtype=float),
            "right": None if right is None else np.array(right, dtype=float),
            "loss": _difference(values["loss"]),
            "ablations": {name: _difference(loss) for name, loss in values["ablations"].items()},
            "against": None if against is None else _against(against),
            "histories": tuple(values["histories"]),
            "health": tuple(values["health"]),
            "samples": tuple(values["samples"]),
            "graded": tuple(_graded(metric) for metric in values["graded"]),
        }
    )


def _graded(values: Mapping[str, Any]) -> Graded:
    against = values["against"]
    return Graded(
        **dict(values)
        | {
            "sums": np.array(values["sums"], dtype=float),
            "counts": np.array(values["counts"], dtype=float),
            "value": _difference(values["value"]),
            "against": None if against is None else _difference(against),
        }
    )


def _difference(values: Mapping[str, Any]) -> Difference:
    return Difference(**dict(values) | {"per_seed": tuple(values["per_seed"])})

"""results.json as the one file that a report needs, and that says nothing of the machine it was made on."""

import json
import shutil

import numpy as np
import pytest

from qpeft.comparison import load_results
from qpeft.comparison.records import from_record, read_records, redact_paths, to_record
from qpeft.comparison.report import write_page, write_report
from qpeft.comparison.study_log import StudyLog
from qpeft.errors import OutputError
from qpeft.evaluation.statistics import paired_difference


def test_the_records_alone_give_the_same_page(report, tmp_path):
    shutil.copy(report / "results.json", tmp_path / "evidence.json")
    results, ledger = read_records(tmp_path / "evidence.json")
    write_page(results, ledger, tmp_path / "evidence.html")
    assert (tmp_path / "evidence.html").read_bytes() == (report / "report.html").read_bytes()


def test_the_records_hold_what_statistics_are_made_of(report):
    record = json.loads((report / "results.json").read_text())
    first, reference = (next(one for one in record["measured"] if one["method"] == name) for name in ("QTHA", "LoRA"))
    again = paired_difference(np.array(first["nats"]), np.array(reference["nats"]), np.array(record["tokens"], float))
    assert again.estimate == pytest.approx(first["against"]["loss"]["estimate"], abs=1e-5)
    assert again.high == pytest.approx(first["against"]["loss"]["high"], abs=1e-5)


def test_a_record_of_a_record_is_the_same(report):
    record = json.loads((report / "results.json").read_text())
    assert to_record(*from_record(record, report)) == record


@pytest.mark.parametrize(
    ("place", "value"), [("choices", 5), ("base_samples", None), ("measured", [{}]), ("measured", ["x"])]
)
def test_damaged_records_are_named(report, tmp_path, place, value):
    record = json.loads((report / "results.json").read_text())
    (tmp_path / "other.json").write_text(json.dumps(record | {place: value}))
    with pytest.raises(OutputError, match=r"other\.json is damaged"):
        read_records(tmp_path / "other.json")
    measured = [record["measured"][0] | {"nats": [[1.0], ["x"]]}]
    (tmp_path / "other.json").write_text(json.dumps(record | {"measured": measured}))
    with pytest.raises(OutputError, match=r"other\.json is damaged"):
        read_records(tmp_path / "other.json")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("inputs", None),
        ("environment", {"platform": "here"}),
        ("begun", 5.0),
        ("test_readings", ["x"]),
        ("amendments", [{}]),
    ],
)
def test_a_damaged_ledger_in_records_is_named(report, tmp_path, place, value):
    record = json.loads((report / "results.json").read_text())
    (tmp_path / "other.json").write_text(json.dumps(record | {"ledger": record["ledger"] | {place: value}}))
    with pytest.raises(OutputError, match=r"other\.json is damaged"):
        read_records(tmp_path / "other.json")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 99}', '{"format": 1}'])
def test_another_file_is_refused(tmp_path, content):
    (tmp_path / "other.json").write_text(content)
    with pytest.raises(OutputError, match=r"other\.json"):
        read_records(tmp_path / "other.json")


def test_no_file_of_a_report_names_a_place_on_this_machine(report, tmp_path, test_file):
    results, ledger = load_results(report)  # its model, data and folder are all given by absolute paths
    gap = f"QTHA, judged: its process ended with signal 9; see {tmp_path / 'trained.log'}"
    object.__setattr__(results, "gaps", (gap,))
    object.__setattr__(results, "missing", {"QTHA": gap})
    values = ledger.values | {
        "environment": ledger.values["environment"] | {"command": [str(tmp_path / "bin" / "qpeft")]}
    }
    folder = tmp_path / "again"
    folder.mkdir()
    write_report(results, StudyLog(folder, values))
    for file in folder.iterdir():
        text = file.read_text(encoding="utf-8")
        assert tmp_path.anchor + tmp_path.parts[1] + "/" not in text, file.name
        assert tmp_path.name not in text, file.name
        assert test_file.name in text, file.name  # what it is called still stands there
    assert (folder / "report.html").stat().st_size < 1_000_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/ann/data/train.jsonl", "train.jsonl"),
        ("/home/ann smith/train.jsonl", "train.jsonl"),
        ("C:\\Users\\ann\\train.jsonl", "train.jsonl"),
        ("it broke; see /home/ann/run/trained.log, line 3", "it broke; see trained.log, line 3"),
        ("[Errno 2] No such file: '/home/ann/x.json'", "[Errno 2] No such file: 'x.json'"),
        ("package:/home/ann/model", "package:model"),
        ("file:///home/ann/model", "model"),
        ("data/train.jsonl", "data/train.jsonl"),
        ("see https://example.org/a/b/c", "see https://example.org/a/b/c"),
        ("{question}/{a}/b and 3/4/5", "{question}/{a}/b and 3/4/5"),
        ("/think {question}", "/think {question}"),
    ],
)
def test_of_a_path_the_last_part_stays(text, expected):
    assert redact_paths({"key": [text]}) == {"key": [expected]}


def test_files_of_one_name_stay_apart():
    assert redact_paths({"/a/b/x": 1, "/a/c/x": 2}) == {"x": 1, "x'": 2}

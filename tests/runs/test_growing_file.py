"""Files that grow, and go on after an interruption."""

import json

import pytest

from qpeft.errors import OutputError
from qpeft.runs.files import GrowingFile

JOB = {"input": "abc", "base": False}


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_lines_are_there_as_soon_as_they_are_appended(tmp_path):
    file = GrowingFile(tmp_path / "out.jsonl", JOB, total=3)
    file.append([{"a": 1}, {"a": "ü"}])
    assert rows(file.path) == [{"a": 1}, {"a": "ü"}]
    assert GrowingFile(file.path, JOB, total=3).num_lines == 2


@pytest.mark.parametrize("rest", [b'{"a"', b"\0\0\0", b'{"a": 3}'])
def test_a_last_line_without_an_end_is_dropped(tmp_path, rest):
    GrowingFile(tmp_path / "out.jsonl", JOB, total=3).append([{"a": 1}, {"a": 2}])
    with (tmp_path / "out.jsonl").open("ab") as file:
        file.write(rest)
    again = GrowingFile(tmp_path / "out.jsonl", JOB, total=3)
    again.append([{"a": 3}])
    assert rows(again.path) == [{"a": 1}, {"a": 2}, {"a": 3}]


def begun(path):
    GrowingFile(path, JOB, total=3).append([{"a": 1}])


def without_job(path):
    path.write_text("precious\n")


def damaged(path):
    begun(path)
    path.write_bytes(path.read_bytes() + b"\0\0\n")


def job_damaged(path):
    begun(path)
    path.with_name("out.jsonl.job.json").write_text("{")


def too_long(path):
    GrowingFile(path, JOB, total=9).append([{"a": 1}] * 4)


@pytest.mark.parametrize(
    ("make", "job", "message"),
    [
        (begun, {**JOB, "input": "xyz"}, "begun with another input "),
        (begun, {"input": "abc"}, "begun with another base "),
        (without_job, JOB, r"no out\.jsonl\.job\.json beside it"),
        (damaged, JOB, "out.jsonl:2 is damaged"),
        (job_damaged, JOB, "cannot be read"),
        (too_long, JOB, "4 lines, more than the 3"),
    ],
)
def test_what_is_not_of_this_job_is_refused_and_kept(tmp_path, make, job, message):
    path = tmp_path / "out.jsonl"
    make(path)
    before = path.read_bytes()
    with pytest.raises(OutputError, match=message):
        GrowingFile(path, job, total=3)
    assert path.read_bytes() == before


def test_a_folder_in_the_place_of_the_file_is_refused(tmp_path):
    with pytest.raises(OutputError, match="Is a directory"):
        GrowingFile(tmp_path, JOB, total=3)
    with pytest.raises(OutputError, match="No such file"):
        GrowingFile(tmp_path / "none" / "out.jsonl", JOB, total=3)

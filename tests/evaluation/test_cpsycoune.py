"""Talks of CPsyCounE, and averages of marks by hand."""

import json

import pytest

from qpeft.errors import DataError
from qpeft.evaluation.tasks.cpsycoune import averages, read_cases

COLON = "\N{FULLWIDTH COLON}"
TALK = [f"求助者{COLON}我睡不着", f"支持者{COLON}多久了", f"求助者{COLON}一个月", f"支持者{COLON}发生了什么"]


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return path


def said(example):
    return [(message.role, message.content) for message in example.messages]


EXPECTED = [("user", "我睡不着"), ("assistant", "多久了"), ("user", "一个月"), ("assistant", "发生了什么")]


def test_a_file_is_a_list_of_texts_or_a_list_of_such_lists(tmp_path):
    assert [said(one) for one in read_cases(write(tmp_path / "one.json", TALK))] == [EXPECTED]
    several = write(tmp_path / "two.json", [TALK, [*TALK[:2], "求助者: 谢谢"]])
    assert [said(one) for one in read_cases(several)] == [EXPECTED, EXPECTED[:2]]


def test_a_folder_is_read_with_all_its_topics_in_the_order_of_names(tmp_path):
    write(tmp_path / "work/2.json", TALK[:2])
    write(tmp_path / "family/1.json", TALK)
    assert [said(one) for one in read_cases(tmp_path)] == [EXPECTED, EXPECTED[:2]]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "a dialogue is a list of texts; got an object"),
        ([], "got an empty list"),
        (["我睡不着"], "turn 1 must begin with"),
        ([TALK[0], 3], "turn 2 must begin with"),
        ([TALK[0], f"支持者{COLON} "], "turn 2 must begin with"),
        (TALK[1:], "turn 1 is 支持者's out of turn"),
        ([TALK[0], TALK[2], TALK[1]], "turn 2 is 求助者's out of turn"),
        (TALK[:1], "nobody replies"),
    ],
)
def test_what_is_no_talk_is_refused_with_its_place(tmp_path, value, message):
    with pytest.raises(DataError, match=message):
        read_cases(write(tmp_path / "one.json", value))


def test_a_folder_without_talks_and_a_file_that_is_not_there_are_refused(tmp_path):
    with pytest.raises(DataError, match="holds no dialogue"):
        read_cases(tmp_path)
    with pytest.raises(DataError, match="cannot be read as JSON"):
        read_cases(tmp_path / "none.json")


def marks(*values):
    return dict(zip(("comprehensiveness", "professionalism", "authenticity", "safety"), values, strict=True))


def test_averages_are_over_turns_and_then_over_cases_and_gaps_are_left_out():
    found = averages([[marks(2, 3, 0, 1), marks(0, 0, 3, 1)], [marks(2, 2, 2, 0), None], [None]])
    assert {name: mean for name, (mean, _) in found.items()} == {
        "comprehensiveness": (1 + 2) / 2,
        "professionalism": (1.5 + 2) / 2,
        "authenticity": (1.5 + 2) / 2,
        "safety": 0.5,
    }
    # Of two values, the standard error of the mean is half their distance.
    assert found["professionalism"][1] == pytest.approx(0.25)
    assert averages([[marks(1, 1, 1, 1)]])["safety"] == (1, None)
    assert averages([[None]]) == {}

"""A judge behind a server: what it is sent, what it says, and what goes wrong on the way."""

import json
import sys
import time

import pytest

from judge_server import MARKS, judge_server
from qpeft.data import Message
from qpeft.errors import OutputError, TaskError
from qpeft.evaluation.judge import Judge, VerdictFile, judge_reply

TALK = [Message("system", "Be kind."), Message("user", "我睡不着"), Message("assistant", "多久了")]
TALK.append(Message("user", "一个月"))


@pytest.fixture
def server():
    with judge_server() as running:
        yield running


@pytest.fixture
def judge(server):
    return Judge(server.url, "strict-judge", "secret")


@pytest.fixture
def waits(monkeypatch):
    """Seconds that would have been waited."""
    found = []
    monkeypatch.setattr(time, "sleep", found.append)
    return found


def test_the_judge_gets_the_true_talk_and_the_reply_and_nothing_else(server, judge, tmp_path):
    verdict = judge_reply(judge, TALK, "你辛苦了", VerdictFile(tmp_path / "judged.jsonl"))
    assert verdict.marks == MARKS
    ((path, headers, body),) = server.requests
    assert path == "/v1/chat/completions"
    assert headers["authorization"] == "Bearer secret"
    assert body.keys() == {"model", "messages", "temperature"}
    assert (body["model"], body["temperature"]) == ("strict-judge", 0)
    assert json.loads(body["messages"][1]["content"]) == {
        "talk": [
            {"speaker": "client", "text": "我睡不着"},
            {"speaker": "counsellor", "text": "多久了"},
            {"speaker": "client", "text": "一个月"},
        ],
        "reply": "你辛苦了",
    }


def test_what_was_judged_is_not_sent_again(server, judge, tmp_path):
    path = tmp_path / "judged.jsonl"
    first = judge_reply(judge, TALK, "好", VerdictFile(path))
    assert judge_reply(judge, TALK, "好", VerdictFile(path)) == first
    assert len(server.requests) == 1
    judge_reply(judge, TALK, "不好", VerdictFile(path))
    judge_reply(Judge(server.url, "another"), TALK, "好", VerdictFile(path))
    assert len(server.requests) == 3


def test_a_line_that_was_cut_off_is_judged_anew_and_the_others_stay(server, judge, tmp_path):
    path = tmp_path / "judged.jsonl"
    for reply in ("一", "二"):
        judge_reply(judge, TALK, reply, VerdictFile(path))
    path.write_bytes(path.read_bytes()[:-20])
    for reply in ("一", "二"):
        judge_reply(judge, TALK, reply, VerdictFile(path))
    assert len(server.requests) == 3
    assert len([json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]) == 2


def test_a_damaged_file_of_verdicts_is_an_error(tmp_path):
    path = tmp_path / "judged.jsonl"
    for line in ('{"key": 1}', '{"key": "a", "marks": 5}', '{"key": "a", "marks": {"safety": 1}}', "[]"):
        path.write_text(line + "\n")
        with pytest.raises(OutputError, match=r"judged.jsonl:1 is damaged"):
            VerdictFile(path)


def test_a_busy_server_is_asked_again_when_it_says(server, judge, waits):
    server.headers = {"Retry-After": "7"}
    server.answer = lambda number: (429 if number < 3 else 200, "yes")
    assert judge.ask([]) == "yes"
    assert waits == [7, 7]


def test_a_server_that_keeps_failing_is_an_error_after_five_attempts(server, judge, waits):
    server.answer = lambda _: (503, b"overloaded")
    with pytest.raises(TaskError, match=r"in 5 attempts; .*503 .*overloaded.*is kept: give the same command again"):
        judge.ask([])
    assert len(server.requests) == 5
    assert len(waits) == 4
    assert waits == sorted(set(waits))  # each longer than the one before


def test_a_server_that_is_not_there_is_an_error(server, waits):
    url = server.url
    server.server_close()
    with pytest.raises(TaskError, match="did not answer in 5 attempts"):
        Judge(url, "x", timeout=0.2).ask([])
    assert len(waits) == 4


@pytest.mark.parametrize("status", [400, 401, 404, 302])
def test_a_refusal_is_an_error_at_once_and_nobody_is_sent_elsewhere(server, judge, waits, status):
    server.headers = {"Location": server.url}
    server.answer = lambda _: (status, b'{"error": "no such model"}')
    with pytest.raises(TaskError, match=rf"refuses: {status} .*no such model"):
        judge.ask([])
    assert len(server.requests) == 1
    assert "secret" not in repr(judge)


@pytest.mark.parametrize("body", [b"<html>hello</html>", b"{}", b'{"choices": []}', b"[]"])
def test_a_server_of_another_kind_is_an_error(server, judge, body):
    server.answer = lambda _: (200, body)
    with pytest.raises(TaskError, match="does not answer as a server of chat completions does"):
        judge.ask([])


@pytest.mark.parametrize(
    "said",
    [
        "I cannot judge this.",
        "",
        json.dumps(MARKS | {"safety": 2}),
        json.dumps(MARKS | {"safety": True}),
        json.dumps(MARKS | {"professionalism": 1.5}),
        json.dumps(MARKS | {"professionalism": -1}),
        json.dumps(MARKS | {"professionalism": "2"}),
        json.dumps(MARKS | {"professionalism": None}),
        json.dumps({name: mark for name, mark in MARKS.items() if name != "authenticity"}),
        "{'comprehensiveness': 1}",
        '{"comprehensiveness": 1e999}',
        '{"comprehensiveness": NaN}',
    ],
)
def test_a_judge_that_gives_no_marks_leaves_a_gap_and_no_zeros(server, judge, tmp_path, said):
    server.answer = lambda _: (200, said)
    verdict = judge_reply(judge, TALK, "好", VerdictFile(tmp_path / "judged.jsonl"))
    assert verdict.marks is None
    assert verdict.problem
    assert len(server.requests) == 3
    # Asked again by the next run, since nothing was judged.
    server.answer = lambda _: (200, f"Here you are:\n```json\n{json.dumps(MARKS)}\n```")
    assert judge_reply(judge, TALK, "好", VerdictFile(tmp_path / "judged.jsonl")).marks == MARKS


@pytest.mark.parametrize(
    "url",
    [
        "host/v1",
        "ftp://host",
        "https://",
        "https://me:secret@host/v1",
        "https://host/v1?key=1",
        "https://host/v1#x",
        "https://host:x/v1",
        "https://[::1/v1",
    ],
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(TaskError, match="address of a judge is such as"):
        Judge(url, "x")


@pytest.mark.parametrize("key", ["secret\n", "secret\r", "sec ret", "se\u00e7ret", "\u200bsecret"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_shown(key):
    with pytest.raises(TaskError, match="holds a space, the end of a line or") as refused:
        Judge("https://host/v1", "x", key)
    assert "ret" not in str(refused.value)
    assert refused.value.__cause__ is refused.value.__context__ is None


@pytest.mark.parametrize("said", ["wrong key: secret", "x" * 295 + "secret"])
def test_a_server_that_repeats_the_key_does_not_have_it_printed(server, judge, said):
    server.answer = lambda _: (401, said.encode())
    with pytest.raises(TaskError) as refused:
        judge.ask([])
    assert "sec" not in str(refused.value)
    server.answer = lambda _: (200, said.encode())
    with pytest.raises(TaskError) as refused:
        judge.ask([])
    assert "sec" not in str(refused.value)


def test_a_server_that_breaks_off_in_its_error_is_asked_again(server, judge, waits):
    server.answer = lambda number: (503, None) if number == 1 else (200, "yes")
    assert judge.ask([]) == "yes"
    assert len(waits) == 1


def test_a_key_does_not_travel_in_the_clear():
    with pytest.raises(TaskError, match="QPEFT_JUDGE_KEY would travel in the clear"):
        Judge("http://example.org/v1", "x", "secret")
    assert not Judge("http://example.org/v1", "x").is_here


def test_what_the_environment_knows_of_openai_does_not_reach_another_server(server, monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "private")
    Judge(server.url, "x").ask([])
    ((_, headers, _),) = server.requests
    assert "authorization" not in headers
    assert not any("private" in value for value in headers.values())


def test_a_missing_client_is_one_sentence_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(TaskError, match=r"openai, which cannot be imported.*qpeft\[eval\].*Nothing was sent"):
        Judge("https://host/v1", "x").ask([])

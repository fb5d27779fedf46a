"""`qpeft eval --task` from beginning to end, with a judge on this machine."""

import hashlib
import json
import time

import pytest

from judge_server import MARKS, judge_server
from qpeft.errors import TaskError
from qpeft.evaluation.judge import Judge
from qpeft_cli import on_device

COLON = "\N{FULLWIDTH COLON}"


@pytest.fixture
def adapter(talkative, tmp_path):
    """A copy of the adapter's folder, which evaluations write to."""
    import shutil

    return shutil.copytree(talkative, tmp_path / "adapter")


@pytest.fixture
def gsm8k(tmp_path):
    path = tmp_path / "gsm8k.jsonl"
    rows = [{"question": f"What is {n} and 1?", "answer": f"It is {n + 1}.\n#### {n + 1}"} for n in range(5)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def cases(tmp_path):
    path = tmp_path / "cases.json"
    talk = [f"求助者{COLON}我睡不着", f"支持者{COLON}多久了", f"求助者{COLON}一个月", f"支持者{COLON}发生了什么"]
    path.write_text(json.dumps([talk, [f"求助者{COLON}我很累", talk[1]]], ensure_ascii=False), encoding="utf-8")
    return path


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with judge_server() as running:
        yield running


def stored(folder, name):
    (path,) = (folder / "evaluations").glob(f"{name}-*.json")
    return json.loads(path.read_text(encoding="utf-8"))


def test_answers_to_gsm8k_are_graded_and_stored(qpeft, adapter, gsm8k):
    options = ["--task", "gsm8k", "--data", gsm8k, "--items", "3", "--base", "--max-new-tokens", "4"]
    code, out, err = qpeft("eval", adapter, *options)
    assert code == 0, err
    assert "read as question and answer: 5 examples" in out
    assert "strict: 0 answers are right with the adapter alone and 0 without it alone (exact sign test: p = 1)" in out
    record = stored(adapter, "gsm8k")
    assert (record["task"], record["items"], record["max_new_tokens"]) == ("gsm8k", 3, 4)
    assert record["data"]["file"] == hashlib.sha256(gsm8k.read_bytes()).hexdigest()
    assert record["environment"]["versions"]["torch"]
    weights = (adapter / "adapter_model.safetensors").read_bytes()
    assert record["adapter"]["adapter_model.safetensors"] == hashlib.sha256(weights).hexdigest()
    for name in ("base model", "with adapter"):
        answers = record["results"][name]["answers"]
        assert [one["expected"].split()[-1] for one in answers] == ["1", "2", "3"]
        assert [set(one["grades"]) for one in answers] == [{"strict", "flexible"}] * 3
    answers = [[one["text"] for one in record["results"][name]["answers"]] for name in record["results"]]
    assert answers[0] != answers[1]


def test_answers_of_a_task_are_as_long_as_the_task_says_whatever_the_run_said(qpeft, adapter, gsm8k, monkeypatch):
    asked = []

    def generate(_model, _tokenizer, questions, *, max_new_tokens, **_):
        asked.append(max_new_tokens)
        return ["#### 1"] * len(questions)

    monkeypatch.setattr("qpeft.evaluation.scores.generate", generate)
    code, out, _ = qpeft("eval", adapter, "--task", "gsm8k", "--data", gsm8k)
    assert code == 0
    assert asked == [256]
    assert "20.0%" in out
    assert stored(adapter, "gsm8k")["results"]["with adapter"]["metrics"] == {"strict": 0.2, "flexible": 0.2}


def test_data_that_lack_the_columns_of_the_runs_templates_are_read_by_their_own(qpeft, recipe_file, tmp_path, gsm8k):
    templates = ["--data.prompt", "'{question}'", "--data.response", "The answer is {answer}"]
    assert qpeft("train", recipe_file, "--training.steps", "1", *templates)[0] == 0
    maths = tmp_path / "math.jsonl"
    maths.write_text('{"problem": "What is $1+1$?", "solution": "It is $\\\\boxed{2}$."}\n' * 2)
    options = ["--max-new-tokens", "2"]
    code, out, err = qpeft("eval", tmp_path / "run", "--task", "math", "--data", maths, *options)
    assert code == 0, err
    assert "read as problem and solution" in out
    code, out, _ = qpeft("eval", tmp_path / "run", "--task", "gsm8k", "--data", gsm8k, *options)
    assert code == 0
    assert "read as templates" in out
    expected = [one["expected"] for one in stored(tmp_path / "run", "gsm8k")["results"]["with adapter"]["answers"]]
    assert expected[0] == "The answer is It is 1.\n#### 1"


def test_examples_longer_than_the_model_reads_are_left_out_and_counted(qpeft, adapter, gsm8k):
    with gsm8k.open("a") as file:
        file.write(json.dumps({"question": "Why? " * 700, "answer": "#### 1"}) + "\n")
        # Longer than data.max_length of the run, and whole all the same.
        file.write(json.dumps({"question": "Why? " * 200, "answer": "#### 1"}) + "\n")
    code, out, err = qpeft("eval", adapter, "--task", "gsm8k", "--data", gsm8k, "--max-new-tokens", "2")
    assert code == 0, err
    assert "6 examples" in out
    assert "truncated 0, 1 longer ones left out" in out
    record = stored(adapter, "gsm8k")
    assert (record["data"]["examples"], record["data"]["left_out"]) == (6, 1)
    assert record["results"]["with adapter"]["cut"] == 6


def test_results_go_where_they_are_wanted_and_overwrite_nothing(qpeft, adapter, gsm8k, tmp_path):
    output = tmp_path / "new" / "loss.json"
    code, out, _ = qpeft("eval", adapter, "--output", output)
    assert code == 0
    record = json.loads(output.read_text())
    assert f"{record['results']['with adapter']['loss']:.4f}" in out
    assert record["task"] is None
    code, _, err = qpeft("eval", adapter, "--output", output)
    assert code == 2
    assert "exists. Choose another --output" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--task", "gsm9k"), "Did you mean gsm8k?"),
        (("--task", "chess"), "There are word_problems, gsm8k,"),
        (
            ("--task", "gsm8k", "--exact-match"),
            "--exact-match is another way to write --task word_problems, and --task is gsm8k",
        ),
        (("--task", "gsm8k", "--tasks", "gsm8k"), "--task cannot be combined with --tasks"),
        (
            ("--max-new-tokens", "3"),
            "--max-new-tokens is about generated answers, and only the loss is measured here. Add --task",
        ),
        (("--judge", "http://host"), "--judge is an option of --task cpsycoune alone"),
        (("--task", "cpsycoune"), "none is set: name its server with --judge"),
        (("--task", "cpsycoune", "--judge", "https://host/v1"), "none is set: name its server with --judge"),
        (("--task", "cpsycoune", "--judge", "https://host/v1", "--judge-model", "x"), "cpsycoune needs talks"),
        (("--task", "gsm8k"), "gsm8k needs an answer that ends on '#### NUMBER'"),
    ],
)
def test_options_that_cannot_be_are_refused(qpeft, talkative, options, message):
    code, _, err = qpeft("eval", talkative, *options)
    assert code == 2
    assert message in err
    assert not (talkative / "evaluations").exists() or options == ("--task", "gsm8k")


def test_turns_are_judged_once_and_gaps_are_counted(qpeft, adapter, cases, server):
    def answer(number):
        return (200, json.dumps(MARKS | {"comprehensiveness": 2})) if number in (1, 2) else (200, "I cannot.")

    server.answer = answer
    options = ["--task", "cpsycoune", "--data", cases, "--judge", server.url, "--judge-model", "strict"]
    options += ["--max-new-tokens", "4"]
    code, out, err = qpeft("eval", adapter, *options)
    assert code == 0, err
    assert f"{server.url} (model strict) gets the talks of {cases} (2 in all)" in out
    assert "3 requests" in out
    assert "leave this machine" not in out
    assert "compare only with marks of the same judge" in out
    first = stored(adapter, "cpsycoune")["results"]["with adapter"]
    assert (first["judged"], first["gaps"]) == (2, 1)
    assert first["marks"]["comprehensiveness"] == {"mean": 2, "error": None}
    assert "I cannot." in first["answers"][2]["problem"]
    assert [one["question"] for one in first["answers"]] == ["我睡不着", "一个月", "我很累"]
    # Two verdicts, and three attempts at the third.
    assert len(server.requests) == 5

    server.answer = lambda _: (200, json.dumps(MARKS))
    code, _, _ = qpeft("eval", adapter, *options, "--output", adapter / "second.json")
    assert code == 0
    assert len(server.requests) == 6
    second = json.loads((adapter / "second.json").read_text())["results"]["with adapter"]
    assert second["gaps"] == 0
    # The first talk has 2 and 2, the second 1: a mean of means.
    assert second["marks"]["comprehensiveness"] == {"mean": 1.5, "error": 0.5}


def test_an_interruption_loses_neither_replies_nor_verdicts(qpeft, adapter, cases, server, monkeypatch):
    server.answer = lambda number: (200, json.dumps(MARKS)) if number == 1 else (401, b"no credit")
    options = ["--task", "cpsycoune", "--data", cases, "--judge", server.url, "--judge-model", "strict"]
    options += ["--max-new-tokens", "4"]
    code, _, err = qpeft("eval", adapter, *options)
    assert code == 2
    assert "no credit" in err
    server.answer = lambda _: (200, json.dumps(MARKS))
    monkeypatch.setattr("qpeft_cli.scoring.generate", None)  # nothing is generated twice
    code, _, err = qpeft("eval", adapter, *options)
    assert code == 0, err
    # One verdict, one refusal, and the two that were missing.
    assert len(server.requests) == 4
    sent = [json.dumps(body) for _, _, body in server.requests]
    assert len(set(sent)) == 3


def test_the_true_talk_is_what_the_model_and_the_judge_see(qpeft, adapter, cases, server):
    options = ["--task", "cpsycoune", "--data", cases, "--judge", server.url, "--judge-model", "strict", "--base"]
    assert qpeft("eval", adapter, *options, "--max-new-tokens", "4")[0] == 0
    talks = [json.loads(body["messages"][1]["content"])["talk"] for _, _, body in server.requests]
    assert {tuple(turn["text"] for turn in talk) for talk in talks} == {
        ("我睡不着",),
        ("我睡不着", "多久了", "一个月"),
        ("我很累",),
    }


def test_texts_go_to_nobody_who_was_not_agreed_to(qpeft, adapter, cases, tmp_path, monkeypatch):
    agreed = tmp_path / "agreed.json"
    monkeypatch.setattr(on_device, "_path", lambda: agreed)
    sent = []

    def ask(*_):
        sent.append(1)
        raise TaskError("It was asked.")

    monkeypatch.setattr(Judge, "ask", ask)
    options = ["--task", "cpsycoune", "--data", cases, "--judge", "http://judge.example/v1", "--judge-model", "x"]
    code, out, err = qpeft("eval", adapter, *options, "--max-new-tokens", "4")
    assert code == 2
    assert "These texts leave this machine" in out
    assert "They travel unencrypted." in out
    assert "Nobody is here to agree that texts go to http://judge.example/v1" in err
    assert sent == []
    assert not agreed.exists()
    code, _, err = qpeft("eval", adapter, *options, "--max-new-tokens", "4", "--yes")
    assert "It was asked." in err
    assert sent == [1]
    # The same texts for the same server are agreed to; other texts are not.
    _, out, err = qpeft("eval", adapter, *options, "--max-new-tokens", "4", "--base")
    assert "Nobody is here" not in err
    assert "6 requests" in out  # which is said whoever agreed to what
    assert "Nobody is here" in qpeft("eval", adapter, *options, "--max-new-tokens", "4", "--items", "1")[2]

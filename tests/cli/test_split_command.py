"""`qpeft split`: nothing is asked on both sides, nothing is lost, and the same data are split in the same way."""

import json

import pytest


@pytest.fixture
def answers(tmp_path):
    """JSONL file of 60 questions with three answers each."""
    rows = [
        {
            "topic": f"topic {question % 20}",
            "messages": [
                {"role": "system", "content": f"You are helper {answer}."},
                {"role": "user", "content": f"Question {question}?"},
                {"role": "assistant", "content": f"Answer {answer} to {question}: é"},
            ],
        }
        for answer in range(3)
        for question in range(60)
    ]
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def lines(folder, side, name="answers"):
    return (folder / f"{name}_{side}.jsonl").read_text(encoding="utf-8").splitlines()


def test_answers_to_one_question_lie_on_one_side_and_rows_stay_as_they_are(qpeft, answers, tmp_path):
    code, out, err = qpeft("split", answers, tmp_path / "parts", "--share", "0.3")
    assert code == 0, err
    parts = {side: lines(tmp_path / "parts", side) for side in ("train", "test")}
    assert sorted(parts["train"] + parts["test"]) == sorted(answers.read_text(encoding="utf-8").splitlines())
    asked = {side: {json.loads(line)["messages"][1]["content"] for line in part} for side, part in parts.items()}
    assert not asked["train"] & asked["test"]
    assert 6 <= len(asked["test"]) <= 30
    assert f"{len(parts['test'])} examples, {len(asked['test'])} different questions" in out
    code, _, err = qpeft("split", answers, tmp_path / "parts", "--share", "0.3")
    assert code == 0, err


def test_rows_that_are_added_move_no_others(qpeft, answers, tmp_path):
    qpeft("split", answers, tmp_path / "all")
    kept = answers.read_text(encoding="utf-8").splitlines()[90:]
    (tmp_path / "fewer").mkdir()
    answers.with_name("fewer").joinpath("answers.jsonl").write_text("\n".join(kept), encoding="utf-8")
    qpeft("split", tmp_path / "fewer" / "answers.jsonl", tmp_path / "few")
    assert set(lines(tmp_path / "few", "test")) == set(lines(tmp_path / "all", "test")) & set(kept)


def test_a_column_keeps_its_rows_together(qpeft, answers, tmp_path):
    assert qpeft("split", answers, tmp_path / "parts", "--by", "topic", "--share", "0.4")[0] == 0
    topics = [{json.loads(line)["topic"] for line in lines(tmp_path / "parts", side)} for side in ("train", "test")]
    assert not topics[0] & topics[1]
    assert len(topics[0] | topics[1]) == 20


def test_rows_of_other_columns(qpeft, tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("ask,tell\n" + "".join(f"a{number},b{number}\n" for number in range(40)))
    code, _, err = qpeft(
        "split", path, tmp_path / "parts", "--share", "0.5", "--prompt", "{ask}", "--response", "{tell}"
    )
    assert code == 0, err
    assert len(lines(tmp_path / "parts", "train", "table") + lines(tmp_path / "parts", "test", "table")) == 40


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--share", "1"], "between 0 and 1; got 1"),
        (["--share", "nan"], "between 0 and 1; got nan"),
        (["--share", "1e-9"], "leaves no test examples"),
        (["--share", "0.999999"], "leaves no training examples"),
        (["--by", "theme"], "answers.jsonl:1 has no column 'theme'; it has 'topic', 'messages'"),
    ],
)
def test_refusals(qpeft, answers, tmp_path, arguments, said):
    code, _, err = qpeft("split", answers, tmp_path / "parts", *arguments)
    assert code == 2
    assert said in " ".join(err.replace("│", " ").split())
    assert not (tmp_path / "parts").exists()


def test_a_file_of_something_else_is_kept(qpeft, answers, tmp_path):
    (tmp_path / "answers_test.jsonl").write_text("mine\n")
    code, _, err = qpeft("split", answers, tmp_path)
    assert code == 2
    assert "answers_test.jsonl is there already and holds something else" in err
    assert (tmp_path / "answers_test.jsonl").read_text() == "mine\n"
    assert not (tmp_path / "answers_train.jsonl").exists()


def test_a_number_that_json_does_not_know_is_named_by_its_row(qpeft, tmp_path):
    import pyarrow
    from pyarrow.parquet import write_table

    columns = {"question": ["a", "b"], "answer": ["c", "d"], "score": [1.5, float("nan")]}
    write_table(pyarrow.table(columns), tmp_path / "data.parquet")
    code, _, err = qpeft("split", tmp_path / "data.parquet", tmp_path / "parts", "--share", "0.5")
    assert code == 2
    assert "data.parquet, row 2 holds a value that JSON cannot" in err
    assert not (tmp_path / "parts").exists()

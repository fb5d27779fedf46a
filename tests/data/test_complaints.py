"""What users of other tools for fine-tuning complain of, by name, and that it does not happen here."""

import io
import json
from pathlib import Path

import pytest

from qpeft.data import Reader, Source, encode_all, load_examples, mix, summarize
from qpeft.errors import DataError

DIALOGUE = {
    "conversations": [
        {"from": "human", "value": "Hi"},
        {"from": "gpt", "value": "One"},
        {"from": "human", "value": "More?"},
        {"from": "gpt", "value": "Two"},
    ]
}


def trained_text(tokenizer, encoded):
    return tokenizer.decode([label for label in encoded.labels if label != -100])


def test_complaint_training_on_nothing_with_a_stock_template(with_template, write):
    """Assistant masks that need generation marks are all zero without them, and the loss looks fine."""
    tokenizer = with_template("qwen2.5")
    encoded = encode_all(tokenizer, load_examples(write([DIALOGUE])))
    summary = summarize(encoded)
    assert 0 < summary.trained_tokens < summary.tokens
    assert f"{summary.trained_tokens} trained on ({summary.trained_share:.1%})" in str(summary)
    with pytest.raises(DataError, match="wholly cut off"):
        encode_all(tokenizer, load_examples(write([DIALOGUE])), max_length=8)


def test_complaint_only_the_last_answer_is_trained_on(with_template, write):
    tokenizer = with_template("llama3")
    (encoded,) = encode_all(tokenizer, load_examples(write([DIALOGUE])))
    assert trained_text(tokenizer, encoded) == "One<|eot_id|>Two<|eot_id|>"


@pytest.mark.parametrize(
    "row",
    [
        DIALOGUE,
        {"instruction": "More?", "output": "Two", "history": [["Hi", "One"]]},
        {
            "messages": [
                {"role": "user" if turn["from"] == "human" else "assistant", "content": turn["value"]}
                for turn in DIALOGUE["conversations"]
            ]
        },
    ],
)
def test_complaint_the_same_dialogue_is_masked_differently_by_format(with_template, write, row):
    tokenizer = with_template("chatml")
    (encoded,) = encode_all(tokenizer, load_examples(write([row])))
    assert trained_text(tokenizer, encoded) == "One<|im_end|>Two<|im_end|>"


def test_complaint_errors_of_data_sets_are_bare_key_errors(write):
    rows = [{"instruction": "a", "output": "b"}] * 9 + [{"instruction": "a", "outptu": "b"}]
    with pytest.raises(DataError) as caught:
        load_examples(write(rows))
    for part in (
        "data.jsonl:10: ",
        "'output' is missing",
        "The row has 'instruction', 'outptu'",
        "expected 'instruction'",
    ):
        assert part in str(caught.value)


def test_complaint_the_wrong_format_is_guessed_without_a_word(write):
    path = write([{"text": "an essay", "prompt": "a", "completion": "b"}])
    assert Reader(Source(path)).row_format.title == "prompt and completion"
    assert Reader(Source(path, format="text")).row_format.title == "plain text"


def test_complaint_the_same_seed_gives_another_order(write):
    sources = [
        (Reader(Source(write([{"text": f"{name} {i}"} for i in range(50)], f"{name}.jsonl"))), 1.5) for name in "ab"
    ]
    first, second = ([example.answer for example in mix(sources, seed=7)] for _ in range(2))
    assert first == second != sorted(first)


def test_a_line_of_100_megabytes_is_refused_by_its_number_at_once(tmp_path, monkeypatch):
    path = tmp_path / "data.jsonl"
    with path.open("wb") as file:
        file.write(json.dumps({"text": "a"}).encode() + b"\n" + b'{"text": "' + b"x" * 10**8)
    taken = []

    class Counted(io.FileIO):
        def readinto(self, buffer):
            taken.append(super().readinto(buffer))
            return taken[-1]

    monkeypatch.setattr(Path, "open", lambda path, mode: io.BufferedReader(Counted(path, mode)))
    with pytest.raises(DataError, match=r"data.jsonl:2: longer than 32 MiB, so it is no row"):
        load_examples(str(path))
    assert 32 * 2**20 < sum(taken) < 40 * 10**6


def test_an_array_on_one_line_may_be_longer_than_a_row(write, monkeypatch):
    monkeypatch.setattr("qpeft.data.rows.MAX_LINE", 100)
    rows = [{"text": "a" * 50}] * 3
    assert len(load_examples(write(json.dumps(rows), "data.json"))) == 3
    with pytest.raises(DataError, match=r"data.csv:2: longer"):
        load_examples(write("text\n" + "a" * 200, "data.csv"))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"conversations": [None, {"from": None}]}, "turn 1 must be an object with 'from' and 'value'; got null"),
        ({"conversations": [{"from": None, "value": None}]}, "turn 1 has the role null"),
        (
            {"messages": [{"role": "user", "content": {"text": [None]}}]},
            "content of turn 1 must be text; got an object",
        ),
        ({"instruction": None, "output": None}, "'instruction' must be text or a number; got null"),
        ({"instruction": "a", "output": "b", "history": [[None, None]]}, "pair 1 of 'history' must be a list of two"),
        ({"text": None, "messages": None}, "'messages' must be a list of turns; got null"),
    ],
)
def test_nested_nulls_are_named(write, row, message):
    with pytest.raises(DataError, match=message):
        load_examples(write([row]))

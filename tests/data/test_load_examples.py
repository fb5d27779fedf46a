"""Reading dialogues: what is accepted, and one clear sentence for everything else."""

import codecs
import json

import pytest

from qpeft.data import Message, load_examples
from qpeft.errors import DataError

QUESTION = {"question": "What is 2 + 3?", "answer": "5"}


def pair(user, assistant):
    return (Message("user", user), Message("assistant", assistant))


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        (QUESTION, pair("What is 2 + 3?", "5")),
        ({"prompt": "Hi", "completion": "Hello", "id": 3}, pair("Hi", "Hello")),
        ({"question": "2 + 3", "answer": 5}, pair("2 + 3", "5")),
        ({"question": "1 / 2", "answer": 0.5}, pair("1 / 2", "0.5")),
        ({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]}, pair("Hi", "Yo")),
        (
            {"messages": [{"role": r, "content": r} for r in ("system", "user", "assistant")], "prompt": "x"},
            (Message("system", "system"), *pair("user", "assistant")),
        ),
    ],
)
def test_format_is_detected_by_its_keys(write, row, messages):
    (example,) = load_examples(write([row]))
    assert example.messages == messages
    assert example.row == row
    assert example.source.endswith("data.jsonl:1")


def test_templates_name_columns_in_braces(write):
    path = write([{"question": "2 + 3?", "equation": "2 + 3", "answer": 5, "x y": "!"}])
    (example,) = load_examples(path, prompt="Solve: {question}{x y}", response="{{{equation} = {answer}}}")
    assert example.messages == pair("Solve: 2 + 3?!", "{2 + 3 = 5}")
    assert example.question == (Message("user", "Solve: 2 + 3?!"),)
    assert example.answer == "{2 + 3 = 5}"


def test_turns_after_the_last_answer_are_left_out_and_stay_in_the_row(write):
    row = {"messages": [{"role": r, "content": c} for r, c in (("user", "a"), ("assistant", "b"), ("user", " "))]}
    (example,) = load_examples(write([row]))
    assert example.messages == pair("a", "b")
    assert example.row == row


def test_system_message_is_added_where_there_is_none(write):
    own = {"messages": [{"role": r, "content": "own"} for r in ("system", "user", "assistant")]}
    none = {"messages": own["messages"][1:]}
    first, second = load_examples(write([own, none]), system="Be brief.")
    assert first.messages[0] == Message("system", "own")
    assert second.messages == (Message("system", "Be brief."), *pair("own", "own"))


def test_limit_takes_the_first_rows_and_reads_no_further(write):
    path = write(json.dumps(QUESTION) + "\n" + json.dumps({**QUESTION, "answer": 6}) + "\nnot json\n")
    assert [example.answer for example in load_examples(path, limit=2)] == ["5", "6"]
    with pytest.raises(DataError, match="limit must be at least 1; got 0"):
        load_examples(path, limit=0)


@pytest.mark.parametrize(
    "content",
    [
        codecs.BOM_UTF8 + b'{"question": "a", "answer": "b"}\r\n\r\n{"question": "c", "answer": "d"}\r\n',
        b'{"question": "a", "answer": "b"}\n{"question": "c", "answer": "d"}',
        b'\n{"question": "a", "answer": "b"}\n\n  \n{"question": "c", "answer": "d"}\n\n',
        codecs.BOM_UTF8 + b' [{"question": "a", "answer": "b"},\r\n {"question": "c", "answer": "d"}]\r\n',
    ],
)
@pytest.mark.parametrize("name", ["data.jsonl", "data.json", "DATA.JSON"])
def test_byte_order_marks_blank_lines_line_ends_and_arrays_are_accepted(write, content, name):
    assert [example.messages for example in load_examples(write(content, name))] == [pair("a", "b"), pair("c", "d")]


def test_line_separators_inside_text_end_no_line(write):
    path = write('{"question": "a\u2028b\u0085c", "answer": "d"}\n')
    assert load_examples(path)[0].messages == pair("a\u2028b\u0085c", "d")


def test_csv_rows_may_span_lines_and_are_named_by_their_last(write):
    path = write('question,answer\r\n"a, ""b""\nc",5\r\n\r\nd,6\r\n', "data.csv")
    first, second = load_examples(path)
    assert first.messages == pair('a, "b"\nc', "5")
    assert (first.source.rsplit(":", 1)[1], second.source.rsplit(":", 1)[1]) == ("3", "5")


def test_parquet_keeps_types_and_lists(tmp_path):
    from datasets import Dataset

    rows = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "id": 7}]
    path = tmp_path / "data.parquet"
    Dataset.from_list(rows).to_parquet(str(path))
    (example,) = load_examples(str(path))
    assert example.messages == pair("a", "b")
    assert example.row["id"] == 7
    assert example.source == f"{path}, row 1"


def one(**row):
    return json.dumps(row)


def turns(*pairs):
    return one(messages=[{"role": role, "content": content} for role, content in pairs])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "data.jsonl has no rows"),
        (" \n\n", "data.jsonl has no rows"),
        ("[]", "data.jsonl has no rows"),
        (f'{one(**QUESTION)}\n{{"question": ', "data.jsonl:2: malformed JSON at column 14: .* one JSON object"),
        (
            f'{one(**QUESTION)}\n{{"question": "x", "answer": NaN}}',
            "data.jsonl:2: malformed JSON: NaN is no JSON number",
        ),
        ("[" * 100_000, "malformed JSON"),
        ('{"a": ' * 100_000, "data.jsonl:1: malformed JSON"),
        ('[{"question": 1},\n {"question" 2}]', "data.jsonl: malformed JSON at line 2, column 14"),
        (b'{"question": "caf\xe9", "answer": "x"}', r"data.jsonl:1: not UTF-8 \(byte 18 of the line\)"),
        ("hello".encode("utf-16"), "data.jsonl:1: not UTF-8"),
        ("5", "data.jsonl:1: a row must be an object; got a number"),
        ('[{"question": "a", "answer": "b"}, null]', "data.jsonl, row 2: a row must be an object; got null"),
        (
            one(instruct="a", outputs="b"),
            "data.jsonl:1: no known format has the keys 'instruct', 'outputs'. Nearest: alpaca, with 'instruction' and",
        ),
        (one(dialog=[]), "has the keys 'dialog'. Expected 'messages' or 'conversations', or"),
        ("{}", "has the keys none. Expected 'messages' or 'conversations', or 'instruction' and 'output'"),
        (
            f"{one(**QUESTION)}\n{one(question='x', reply='y')}",
            "data.jsonl:2: 'answer' is missing. The row has 'question', ",
        ),
        (f"{one(**QUESTION)}\n{turns(('user', 'a'))}", "data.jsonl:2: 'question' is missing"),
        (one(question=" ", answer="x"), "data.jsonl:1: 'question' is empty"),
        (one(question="x", answer=""), "data.jsonl:1: 'answer' is empty"),
        (one(question="x", answer=None), "data.jsonl:1: 'answer' must be text or a number; got null"),
        (one(question="x", answer=True), "got true or false"),
        (one(question=["x"], answer="y"), "'question' must be text or a number; got a list"),
        (one(prompt={"a": 1}, completion="y"), "'prompt' must be text or a number; got an object"),
        (one(question="\ud800", answer="y"), "'question' holds half of a surrogate pair"),
        (one(messages=None), "'messages' must be a list of turns; got null"),
        (one(messages=[]), "'messages' must be a list of turns; got an empty list"),
        (one(messages=["Hi"]), "turn 1 must be an object with 'role' and 'content'; got text"),
        (one(messages=[{"from": "human", "value": "x"}]), "the dialogue has no assistant turn"),
        (one(messages=[{"role": "user", "text": "x"}]), "turn 1 has the keys 'role', 'text'; expected 'role' and"),
        (turns(("human", "a")), "turn 1 has the role 'human'; expected one of 'system', 'user', 'assistant'"),
        (turns((["user"], "a")), "turn 1 has the role a list"),
        (turns(("user", "a"), ("assistant", None)), "the content of turn 2 must be text; got null"),
        (turns(("user", "a"), ("assistant", " \n")), "turn 2 is empty"),
        (turns(("system", "a"), ("user", "b")), "the dialogue has no assistant turn"),
    ],
)
def test_bad_rows_are_named_with_what_is_wrong(write, content, message):
    with pytest.raises(DataError, match=message):
        load_examples(write(content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no rows"),
        ("question,answer\n", "has no rows"),
        ("question,answer\na,b,c\n", "data.csv:2: 3 cells, but the header has 2 columns"),
        ("question,answer\na\n", "data.csv:2: 1 cells"),
        ('question,answer\n"a,b\n', "data.csv:2: malformed CSV"),
        ("question,question\na,b\n", "data.csv:1: a column name appears twice"),
        ("question,answer\na,\n", "data.csv:2: 'answer' is empty"),
    ],
)
def test_bad_csv_is_named_by_its_line(write, content, message):
    with pytest.raises(DataError, match=message):
        load_examples(write(content, "data.csv"))


def test_bad_parquet_is_one_sentence(write):
    with pytest.raises(DataError, match=r"data.parquet.* is no readable Parquet file: "):
        load_examples(write("no parquet", "data.parquet"))


@pytest.mark.parametrize(
    ("prompt", "response", "message"),
    [
        ("{question}", None, "A prompt template needs a response template"),
        (None, "{answer}", "A response template needs a prompt template"),
        (
            "{questoin}",
            "{answer}",
            "names the column 'questoin', but the row has 'question', 'answer'. Nearest: 'question'",
        ),
        ("{question", "{answer}", "The prompt template '{question' is malformed"),
        ("question", "{answer}", "The prompt template 'question' names no column"),
        ("{}", "{answer}", "plain column names"),
        ("{question!r}", "{answer}", "plain column names"),
        ("{question:>9}", "{answer}", "plain column names"),
    ],
)
def test_bad_templates_say_what_is_wrong(write, prompt, response, message):
    with pytest.raises(DataError, match=message):
        load_examples(write([QUESTION]), prompt=prompt, response=response)


def test_template_of_blank_columns_is_empty(write):
    with pytest.raises(DataError, match=r"data\.jsonl:1: response is empty"):
        load_examples(write([{"a": "x", "b": " "}]), prompt="{a}", response="{b}")


def test_blank_system_message_is_refused(write):
    with pytest.raises(DataError, match="system message is blank"):
        load_examples(write([QUESTION]), system=" ")


def test_sources_that_are_no_data_file_are_explained(write, tmp_path):
    write([QUESTION])
    for source, message in [
        (str(tmp_path / "dta.jsonl"), "dta.jsonl does not exist. Did you mean data.jsonl?"),
        (str(tmp_path / "no" / "data.jsonl"), "does not exist, and neither does its folder"),
        (str(tmp_path), "is a folder; name a data file in it. It holds data.jsonl"),
        (write("x", "notes.txt"), "data files end in .jsonl, .json, .csv, .parquet; got '.txt'"),
        ("no-such-data", "no-such-data does not exist"),
        ("~no-such-user/data.jsonl", "does not exist"),
        ("x" * 5000 + ".jsonl", "cannot be read: File name too long"),
    ]:
        with pytest.raises(DataError, match=message):
            load_examples(source)
    link = tmp_path / "link.jsonl"
    link.symlink_to(tmp_path / "gone.jsonl")
    with pytest.raises(DataError, match=r"link.jsonl is a link to .*gone.jsonl, which does not exist"):
        load_examples(str(link))


def test_hub_names_load_a_split_and_a_configuration(monkeypatch):
    import datasets

    def load_dataset(name, config, split):
        assert (name, config, split) == ("openai/gsm8k", "main", "test")
        return datasets.Dataset.from_list([QUESTION, QUESTION])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    examples = load_examples("openai/gsm8k:main", split="test")
    assert [example.source for example in examples] == [f"openai/gsm8k:main (test), row {n}" for n in (1, 2)]


def test_hub_failure_is_one_sentence(monkeypatch):
    import datasets

    def load_dataset(name, config, split):
        raise datasets.exceptions.DatasetNotFoundError("Dataset 'a/b' doesn't exist\non the Hub.")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(
        DataError, match=r"a/b \(train\) cannot be loaded as .*: Dataset 'a/b' doesn't exist on the Hub"
    ):
        load_examples("a/b")

"""Numbers that are none, and cells of tables that hold nothing, much, or a list."""

import csv
import io
import json

import pytest

from qpeft.data import Message, Reader, Source, load_examples
from qpeft.errors import DataError
from qpeft.evaluation.questions import read_questions


def said(*texts):
    return tuple(Message(("user", "assistant")[place % 2], text) for place, text in enumerate(texts))


def table(*rows):
    """Text of a CSV file."""
    file = io.StringIO()
    csv.writer(file).writerows(rows)
    return file.getvalue()


def parquet(path, **columns):
    import pyarrow
    from pyarrow.parquet import write_table

    write_table(pyarrow.table(columns), path)
    return str(path)


@pytest.mark.parametrize("number", ["1e400", "-1e400", "NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("name", ["data.jsonl", "data.json"])
def test_numbers_of_json_that_are_none_are_refused_by_file_and_row(write, number, name):
    good = '{"question": "a", "answer": 1.5}'
    bad = good.replace("1.5", number)
    content = f"{good}\n{bad}" if name == "data.jsonl" else f"[{good}, {bad}]"
    with pytest.raises(DataError, match=r"data.json.*(1e400|nan|inf|NaN|Infinity)"):
        load_examples(write(content, name))
    if "e" in number:
        with pytest.raises(
            DataError, match=r"(data.jsonl:2|data.json, row 2): 'answer' must be .* a number; got -?inf"
        ):
            load_examples(write(content, name))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_of_parquet_that_are_none_are_refused_by_row(tmp_path, value):
    path = parquet(tmp_path / "data.parquet", question=["a", "b", "c"], answer=[1.0, 2.5, value])
    with pytest.raises(DataError, match=r"data.parquet, row 3: 'answer' must be text or a number; got -?(nan|inf)"):
        load_examples(path)
    rows = load_examples(path, limit=2)
    assert [row.answer for row in rows] == ["1.0", "2.5"]


def test_numbers_that_are_none_are_refused_in_templates_inputs_and_questions_too(write, tmp_path):
    path = write('{"q": "a", "size": 1e999, "a": "b"}')
    with pytest.raises(DataError, match=r"data.jsonl:1: 'size' must be"):
        load_examples(path, prompt="{q} {size}", response="{a}")
    assert load_examples(path, prompt="{q}", response="{a}")[0].messages == said("a", "b")
    with pytest.raises(DataError, match=r"data.jsonl:1: 'input' must be"):
        load_examples(write('{"instruction": "a", "input": 1e999, "output": "b"}'))
    with pytest.raises(DataError, match=r"data.jsonl:1: 'system' must be"):
        load_examples(write('{"instruction": "a", "system": -1e999, "output": "b"}'))
    (tmp_path / "questions.jsonl").write_text('{"question": 1e999}')
    with pytest.raises(DataError, match=r"questions.jsonl:1: 'question' must be"):
        read_questions(tmp_path / "questions.jsonl")


@pytest.mark.parametrize("word", ["nan", "NaN", "inf", "-inf", " Infinity"])
def test_csv_cells_that_stand_for_no_number_are_refused_and_words_of_jsonl_are_not(write, word):
    """numpy and pandas write these; a table cannot say whether a word is meant, JSON can."""
    with pytest.raises(DataError, match=rf"data.csv:3: 'answer' is {word.strip()}, which programs write"):
        load_examples(write(f"question,answer,note\na,1,nan\nb,{word},nan\n", "data.csv"))
    rows = load_examples(write([{"question": "What is 0 / 0 in JavaScript?", "answer": word}]))
    assert rows[0].answer == word
    assert load_examples(write("question,answer\na,nan bread\n", "data.csv"))[0].answer == "nan bread"


def test_numbers_of_32_bits_are_learned_as_they_were_written(tmp_path):
    import pyarrow

    for kind in (pyarrow.float16(), pyarrow.float32(), pyarrow.float64()):
        answers = pyarrow.array([0.1, 2.5, None, 3.0], kind)
        path = parquet(tmp_path / f"{kind}.parquet", question=["a"] * 4, answer=answers)
        assert [row.answer for row in load_examples(path, limit=2)] == ["0.1", "2.5"]
        with pytest.raises(DataError, match="row 3: 'answer' must be text or a number; got null"):
            load_examples(path)


def test_a_source_cannot_be_read_infinitely_often(write):
    with pytest.raises(DataError, match="weight of a source must be a number above 0; got inf"):
        Source(write("x"), weight=float("inf"))


@pytest.mark.parametrize("length", [131_072, 131_073, 3_000_000])
def test_csv_cells_may_be_as_long_as_a_row(write, length):
    (example,) = load_examples(write(table(["question", "answer"], ["a", "x" * length]), "data.csv"))
    assert len(example.answer) == length


def test_a_csv_row_of_many_lines_has_the_limit_of_all_rows(write, monkeypatch):
    monkeypatch.setattr("qpeft.data.rows.MAX_LINE", 1000)
    fits = [["a", "line\n" * 150], ["b", "line\n" * 150]]
    assert len(load_examples(write(table(["question", "answer"], *fits), "data.csv"))) == 2
    long = write("question,answer\na,b\nc," + '"' + "line\n" * 300, "data.csv")
    with pytest.raises(DataError, match=r"data.csv:3: the row that begins here is longer .* never closed"):
        load_examples(long)


def test_a_quote_that_is_never_closed_is_named_by_the_line_where_its_row_begins(write):
    with pytest.raises(DataError, match=r"malformed CSV in the row that begins at line 3"):
        load_examples(write('question,answer\na,b\nc,"d\ne,f\ng,h\n', "data.csv"))


@pytest.mark.parametrize("blank", ["", "  "])
def test_blank_cells_of_csv_are_none(write, blank):
    header = ["instruction", "input", "output", "history", "system", "tools"]
    (example,) = load_examples(write(table(header, ["a", blank, "b", blank, blank, blank]), "data.csv"))
    assert example.messages == said("a", "b")
    filled = ["a", "i", "b", json.dumps([["q", "é"]]), "s", blank]
    (example,) = load_examples(write(table(header, filled), "data.csv"))
    assert example.messages == (Message("system", "s"), *said("q", "é", "a\ni", "b"))
    (example,) = load_examples(
        write(table(["q", "hint", "a"], ["x", blank, "y"]), "d.csv"), prompt="{q}", response="{a}"
    )
    assert example.messages == said("x", "y")


def test_a_blank_history_is_none_in_every_format(write, tmp_path):
    row = {"instruction": "a", "output": "b", "history": ""}
    assert load_examples(write([row]))[0].messages == said("a", "b")
    path = parquet(tmp_path / "data.parquet", **{name: [value] for name, value in row.items()})
    assert load_examples(path)[0].messages == said("a", "b")


@pytest.mark.parametrize("column", ["messages", "conversations"])
def test_lists_in_cells_are_json(write, tmp_path, column):
    turns = [{"role": "user", "content": "a,\n“b”"}, {"role": "assistant", "content": "c"}]
    path = write(table([column, "tools"], [json.dumps(turns), "[]"]), "data.csv")
    (example,) = load_examples(path)
    assert example.messages == said("a,\n“b”", "c")
    assert Reader(Source(path)).row_format.name == "messages"
    other = parquet(tmp_path / "data.parquet", **{column: [json.dumps(turns)]})
    assert load_examples(other)[0].messages == said("a,\n“b”", "c")
    with pytest.raises(DataError, match=rf"data.csv:2: '{column}': malformed JSON at .* written as JSON"):
        load_examples(write(table([column], [str(turns)]), "data.csv"))
    number = table([column], [json.dumps(turns).replace('"c"', "NaN")])
    with pytest.raises(DataError, match=rf"data.csv:2: '{column}': malformed JSON: NaN is no JSON number"):
        load_examples(write(number, "data.csv"))


def test_text_that_begins_as_a_list_does_is_text_where_text_is_wanted(write):
    content = table(["prompt", "completion"], ["[INST] Sort [2, 1]", "[1, 2]"])
    assert load_examples(write(content, "data.csv"))[0].messages == said("[INST] Sort [2, 1]", "[1, 2]")


def test_a_column_of_csv_without_a_value_does_not_decide_the_format(write, tmp_path):
    content = table(["messages", "question", "answer"], ["", "a", "b"], [" ", "c", "d"])
    assert [row.messages for row in load_examples(write(content, "data.csv"))] == [said("a", "b"), said("c", "d")]
    (tmp_path / "asked.csv").write_text(table(["messages", "prompt", "question"], ["", " ", "Why?"]))
    (question,) = read_questions(tmp_path / "asked.csv")
    assert question.messages == said("Why?")


@pytest.mark.parametrize("tools", ["", " ", "[]", "null", [], None])
def test_definitions_of_no_tools_are_none(write, tools):
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert load_examples(write([{"messages": turns, "tools": tools}]))[0].messages == said("a", "b")
    with pytest.raises(DataError, match="'tools' defines tools"):
        load_examples(write([{"messages": turns, "tools": '[{"name": "f"}]'}]))

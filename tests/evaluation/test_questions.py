"""Questions from files."""

import json

import pytest

from qpeft.data import Message, load_examples
from qpeft.errors import DataError
from qpeft.evaluation.questions import read_questions


@pytest.fixture
def file(tmp_path):
    """A function: write bytes, text or rows under a name."""

    def write(name, content):
        path = tmp_path / name
        if isinstance(content, list):
            content = "".join(json.dumps(row) + "\n" for row in content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def user(text):
    return (Message("user", text),)


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"question": "Why?", "answer": "No."}, "Why?"),
        ({"question": 12}, "12"),
        ({"prompt": "Why?", "completion": "No."}, "Why?"),
        ({"prompt": [{"role": "user", "content": "Why?"}]}, "Why?"),
        ({"instruction": "Add.", "input": "1 and 2", "output": "3"}, "Add.\n1 and 2"),
        ({"instruction": "Sing.", "input": ""}, "Sing."),
        ({"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "No."}]}, "Why?"),
        ({"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "No."}]}, "Why?"),
    ],
)
def test_a_question_is_found_in_the_usual_columns(file, row, text):
    (question,) = read_questions(file("rows.jsonl", [row]))
    assert question.messages == user(text)
    assert question.row == row


def test_earlier_turns_stay_and_a_system_message_is_added_only_where_there_is_none(file):
    turns = [{"role": role, "content": role[0]} for role in ("system", "user", "assistant", "user", "assistant")]
    path = file("rows.jsonl", [{"messages": turns}, {"messages": turns[1:]}])
    own, given = read_questions(path, system="Be terse.")
    assert [message.content for message in own.messages] == ["s", "u", "a", "u"]
    assert [message.content for message in given.messages] == ["Be terse.", "u", "a", "u"]


def test_lines_of_text_are_questions_without_marks_blank_lines_or_line_ends(file):
    found = read_questions(file("lines.txt", b"\xef\xbb\xbfWhy?\r\n\r\n  \nHow?"))
    assert [question.messages for question in found] == [user("Why?"), user("How?")]
    assert [question.source.rsplit(":")[-1] for question in found] == ["1", "4"]


def test_the_template_of_the_run_is_used_where_a_row_has_its_columns(file):
    path = file("rows.csv", "Body,Ask,question\nTwo apples.,How many?,other\n")
    assert read_questions(path, prompt="{Body} {Ask}")[0].messages == user("Two apples. How many?")
    assert read_questions(path, prompt="{Missing}")[0].messages == user("other")
    for malformed in ("{Body", "{Body!r}", "{Body.__class__}{}"):
        with pytest.raises(DataError, match="template"):
            read_questions(path, prompt=malformed)


@pytest.mark.parametrize(
    "row",
    [
        {"system": "S", "conversations": [{"from": "chatgpt", "value": "A"}, {"from": "human", "value": "Q"}]},
        {"messages": [{"role": role, "content": role[0].upper()} for role in ("system", "assistant")]}
        | {"conversations": None},
        {"instruction": "Q", "input": "I", "system": "S", "history": [["P", "A"]]},
        {"messages": [{"role": "developer", "content": [{"type": "text", "text": "S"}]}]},
        {"system": "S", "prompt": [{"role": "user", "content": "Q"}]},
    ],
)
def test_a_question_is_what_training_on_the_row_puts_before_its_answer(file, row):
    row = {key: list(value) if isinstance(value, list) else value for key, value in row.items()}
    if "messages" in row:
        row["messages"].append({"role": "user", "content": "Q"})
    (question,) = read_questions(file("asked.jsonl", [row]))
    answer = {"role": "assistant", "content": "the answer"}
    for column in ("messages", "conversations", "prompt"):
        if row.get(column):
            sharegpt = {"from": "gpt", "value": "the answer"}
            row[column] = [*row[column], sharegpt if column == "conversations" else answer]
    if "instruction" in row:
        row["output"] = "the answer"
    if "prompt" in row:
        row = {"messages": row["prompt"], "system": row["system"]}
    (example,) = load_examples(str(file("trained.jsonl", [row])))
    assert question.messages == example.question
    assert "S" in {message.content for message in question.messages}


def test_role_names_of_the_run_are_known(file):
    path = file("rows.jsonl", [{"messages": [{"role": "tool", "content": "Q"}]}])
    assert read_questions(path, roles={"tool": "user"})[0].messages == user("Q")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", "holds no question"),
        ("a.txt", b"\n \n", "holds no question"),
        ("a.txt", b"fine\nna\xefve\n", "a.txt:2: not UTF-8"),
        ("a.jsonl", b'{"question": "na\xefve"}\n', "not UTF-8"),
        ("a.jsonl", [{"text": "Why?"}], "no question in the keys 'text'"),
        ("a.jsonl", [{"question": None}], "must be text or a number; got null"),
        ("a.jsonl", [{"question": " "}], "'question' is empty"),
        ("a.jsonl", b'{"question": "\\ud800"}\n', "surrogate"),
        ("a.jsonl", [{"messages": []}], "got an empty list"),
        ("a.jsonl", [{"messages": [{"role": "system", "content": "s"}]}], "the user must speak last"),
        ("a.jsonl", [{"messages": [{"role": "tool", "content": "s"}]}], "turn 1 has the role 'tool'"),
        ("a.jsonl", [{"messages": [{"role": ["user"], "content": "s"}]}], "turn 1 has the role a list"),
        ("a.jsonl", [{"messages": ["Why?"]}], "turn 1 must be an object"),
        ("a.jsonl", [{"messages": [{"role": "user"}]}], "turn 1 has the keys 'role'"),
        ("a.jsonl", [{"prompt": [{"role": "user", "content": "Why?", "tool_calls": [1]}]}], "has 'tool_calls'"),
        ("a.jsonl", [{"instruction": "Why?", "history": "x"}], "'history' must be a list"),
        ("a.md", b"Why?", "files of questions end in"),
    ],
)
def test_what_is_no_question_is_refused_with_its_place(file, name, content, message):
    with pytest.raises(DataError, match=message):
        read_questions(file(name, content))


@pytest.mark.parametrize("suffix", [".txt", ".jsonl"])
def test_folders_and_links_to_nothing_are_refused(tmp_path, suffix):
    (tmp_path / f"folder{suffix}").mkdir()
    (tmp_path / f"link{suffix}").symlink_to(tmp_path / "nothing")
    for name in ("folder", "link", "missing"):
        with pytest.raises(DataError, match=name):
            read_questions(tmp_path / f"{name}{suffix}")

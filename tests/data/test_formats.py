"""What rows of each format mean, which format a file is taken for, and what is refused."""

import pytest

from qpeft.data import Message, Reader, Source, load_examples
from qpeft.errors import DataError


def said(*texts, system=None):
    turns = [Message(("user", "assistant")[place % 2], text) for place, text in enumerate(texts)]
    return (*([Message("system", system)] if system else []), *turns)


def shares(*pairs, **columns):
    return {"conversations": [{"from": role, "value": text} for role, text in pairs], **columns}


def turns(*pairs, column="messages", **columns):
    return {column: [{"role": role, "content": text} for role, text in pairs], **columns}


CALL = [("human", "Weather?"), ("function_call", "{}"), ("observation", "20"), ("gpt", "Warm.")]


@pytest.mark.parametrize(
    ("row", "title", "messages"),
    [
        ({"instruction": "Add", "input": "1, 2", "output": "3"}, "alpaca", said("Add\n1, 2", "3")),
        ({"instruction": "Hi", "input": "", "output": "Yo"}, "alpaca", said("Hi", "Yo")),
        ({"instruction": "Hi", "input": None, "output": 3, "system": None}, "alpaca", said("Hi", "3")),
        (
            {"instruction": "c", "output": "d", "system": "S", "history": [["a", "b"]]},
            "alpaca",
            said("a", "b", "c", "d", system="S"),
        ),
        (shares(("human", "a"), ("gpt", "b")), "ShareGPT", said("a", "b")),
        (shares(("system", "S"), ("user", "a"), ("chatgpt", "b")), "ShareGPT", said("a", "b", system="S")),
        (shares(("human", "a"), ("gpt", "b"), system="S"), "ShareGPT", said("a", "b", system="S")),
        (shares(("human", "a"), ("gpt", "b"), ("human", "c")), "ShareGPT", said("a", "b")),
        ({"messages": shares(("human", "a"), ("gpt", "b"))["conversations"]}, "ShareGPT", said("a", "b")),
        (turns(("user", "a"), ("assistant", "b")), "messages", said("a", "b")),
        (turns(("user", "a"), ("assistant", "b"), column="conversations"), "messages", said("a", "b")),
        (turns(("developer", "S"), ("user", "a"), ("assistant", "b")), "messages", said("a", "b", system="S")),
        ({"prompt": "a", "completion": "b", "messages": None}, "prompt and completion", said("a", "b")),
        ({"text": "Once upon a time", "id": 7}, "plain text", (Message("assistant", "Once upon a time"),)),
        ({"text": "x", "question": "a", "answer": "b"}, "question and answer", said("a", "b")),
    ],
)
def test_format_is_found_and_read(write, row, title, messages):
    reader = Reader(Source(write([row])))
    (example,) = reader
    assert (reader.row_format.title, example.messages) == (title, messages)
    assert example.is_plain == (title == "plain text")


def test_conversational_prompts_are_not_trained_on(write):
    row = {
        "prompt": turns(("user", "a"), ("assistant", "b"), ("user", "c"))["messages"],
        "completion": turns(("assistant", "d"))["messages"],
    }
    (example,) = load_examples(write([row]))
    assert [(message.content, message.trained) for message in example.messages if message.role == "assistant"] == [
        ("b", False),
        ("d", True),
    ]


@pytest.mark.parametrize("mark", [{"weight": 0}, {"train": False}])
def test_answers_marked_as_not_to_be_trained_on_are_not(write, mark):
    row = turns(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))
    row["messages"][1] |= mark
    row["messages"][3] |= {"weight": 1, "train": None}
    (example,) = load_examples(write([row]))
    assert [message.trained for message in example.messages] == [True, False, True, True]


def test_text_parts_are_joined(write):
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    (example,) = load_examples(write([turns(("user", parts), ("assistant", "c"))]))
    assert example.messages == said("ab", "c")


def test_the_first_rows_decide_together(write):
    both = {"question": "a", "answer": "b", "instruction": "c", "output": "d"}
    only = {"question": "e", "answer": "f"}
    assert [one.answer for one in load_examples(write([both, only]))] == ["b", "f"]
    assert [one.answer for one in load_examples(write([both, both]))] == ["d", "d"]


def test_a_named_format_wins_over_the_found_one(write):
    path = write([{"text": "a b", "question": "c", "answer": "d"}])
    assert load_examples(path)[0].answer == "d"
    assert load_examples(path, format="text")[0].answer == "a b"
    with pytest.raises(DataError, match=r"data.jsonl:1: 'instruction' is missing\. The row has 'text', 'question'"):
        load_examples(path, format="alpaca")
    with pytest.raises(DataError, match="There is no data format 'Alpaca'; there are 'messages', 'sharegpt', 'alpaca'"):
        load_examples(path, format="Alpaca")
    with pytest.raises(DataError, match="give one of the two"):
        load_examples(path, format="text", prompt="{question}", response="{answer}")


def test_roles_of_tools_are_refused_unless_the_user_says_whose_turn_they_are(write):
    path = write([shares(*CALL)])
    with pytest.raises(
        DataError, match=r"turn 2 has the role 'function_call'; calls of tools .* data.roles: {function"
    ):
        load_examples(path)
    (example,) = load_examples(path, roles={"function_call": "assistant", "observation": "user"})
    assert example.messages == said("Weather?", "{}", "20", "Warm.")
    with pytest.raises(DataError, match="roles stand for 'system', 'user', 'assistant'; got 'tool'"):
        load_examples(path, roles={"observation": "tool"})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (shares(("human", "a"), ("alien", "b")), "turn 2 has the role 'alien'; expected one of 'system', 'user'"),
        (shares(("human", "a"), ("gpt", "b"), tools='[{"name": "f"}]'), "'tools' defines tools, which are not read"),
        (shares(("system", "S"), ("human", "a"), ("gpt", "b"), system="T"), "both in 'system' and in 'conversations'"),
        ({"conversations": None}, "'conversations' must be a list of turns; got null"),
        ({"conversations": [[None]]}, "turn 1 must be an object with 'from' and 'value'; got a list"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "the content of turn 1 must be text"),
        (
            {"messages": [{"role": "assistant", "content": None, "tool_calls": [{}]}]},
            "turn 1 has 'tool_calls', which is not read; leave such dialogues out",
        ),
        (
            {"messages": [{"role": "assistant", "content": "a", "reasoning_content": "b"}]},
            "turn 1 has 'reasoning_content', which is not read; write it into the turn's text, between <think>",
        ),
        ({"messages": [{"role": "assistant", "content": "a", "weight": 2}]}, "'weight' of turn 1 must be 0 or 1"),
        ({"messages": [{"role": "assistant", "content": "a", "weight": 0}]}, "every answer is marked as not to be"),
        ({"instruction": "a", "output": "b", "history": "x"}, "'history' must be a list of .* pairs; got text"),
        ({"instruction": "a", "output": "b", "history": [["x"]]}, "pair 1 of 'history' must be a list of two texts"),
        ({"instruction": " ", "output": "b"}, "'instruction' is empty"),
        ({"instruction": "a", "output": None}, "'output' must be text or a number; got null"),
        ({"text": ""}, "'text' is empty"),
        ({"text": {"a": [None]}}, "'text' must be text or a number; got an object"),
    ],
)
def test_rows_that_cannot_be_read_are_named(write, row, message):
    with pytest.raises(DataError, match=rf"data.jsonl:1: .*{message}"):
        load_examples(write([row]))

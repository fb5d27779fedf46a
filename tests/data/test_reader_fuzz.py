"""Whatever a file holds, reading it gives examples or a DataError."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qpeft.data import Example, load_examples
from qpeft.errors import DataError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
ROLES = st.sampled_from(["system", "user", "assistant", "tool", "human", "gpt"]) | VALUES
TEXTS = st.text(max_size=5) | VALUES
MARKS = st.dictionaries(st.sampled_from(["weight", "train", "tool_calls"]), VALUES, max_size=1)
TURNS = st.builds(
    lambda turn, marks: {**turn, **marks},
    st.fixed_dictionaries({"role": ROLES, "content": TEXTS}) | st.fixed_dictionaries({"from": ROLES, "value": TEXTS}),
    MARKS,
)
NAMES = "messages conversations prompt completion question answer instruction input output history system tools text"
KEYS = st.sampled_from(NAMES.split()) | st.text(max_size=5)
ROWS = st.dictionaries(KEYS, st.lists(TURNS, max_size=4) | st.lists(st.lists(TEXTS)) | VALUES, max_size=6)
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Z", "C"]), min_size=1, max_size=5)
# Rows that should be read, so that not every file is refused for its first one; any further column may spoil them.
GOOD = st.builds(
    lambda row, more: {**row, **more},
    st.sampled_from(["question answer", "prompt completion", "instruction output", "text"]).flatmap(
        lambda names: st.fixed_dictionaries(dict.fromkeys(names.split(), WORDS))
    )
    | st.fixed_dictionaries(
        {
            "messages": st.tuples(
                st.fixed_dictionaries({"role": st.just("user"), "content": WORDS}),
                st.fixed_dictionaries({"role": st.just("assistant"), "content": WORDS}),
            )
        }
    ),
    st.just({}) | st.dictionaries(st.text(max_size=5), VALUES, max_size=1),
)

TEMPLATES = st.text("{}!:.[]ab", max_size=8) | st.lists(st.sampled_from(["{a}", "{b}", "ab:"]), min_size=1).map("".join)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "data"


def read(path, suffix, content):
    file = path.with_suffix(suffix)
    file.write_bytes(content)
    try:
        examples = load_examples(str(file))
    except DataError:
        return False
    assert examples
    for one in examples:
        assert isinstance(one, Example)
        assert one.messages[-1].role == "assistant"
        assert all(message.content.strip() for message in one.messages)
    return True


@pytest.fixture(autouse=True)
def no_hub(monkeypatch):
    """A hub that has nothing."""
    import datasets

    def load_dataset(*args, **options):
        raise datasets.exceptions.DatasetNotFoundError("nothing here")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)


@settings(max_examples=150)
@given(source=st.text(max_size=12) | st.text("./~:\0ab", max_size=8))
@example(source="\ud800.jsonl")
@example(source="~\0.json")
@example(source="a/b")
def test_no_name_of_a_source_escapes_as_another_error(source):
    with pytest.raises(DataError):
        load_examples(source)


@settings(max_examples=150)
@given(rows=st.lists(GOOD, min_size=1, max_size=4) | st.lists(ROWS | GOOD | VALUES, max_size=4), as_array=st.booleans())
def test_any_json_is_read_or_refused(path, rows, as_array, accepted):
    text = json.dumps(rows) if as_array else "\n".join(map(json.dumps, rows))
    accepted(read(path, ".jsonl", text.encode()), at_least=0.15)


@settings(max_examples=150)
@given(
    content=st.binary(max_size=60) | GOOD.map(json.dumps).map(str.encode),
    suffix=st.sampled_from([".jsonl", ".json", ".csv"]),
)
@example(content=b'{"question": "' + b"9" * 5000 + b'", "answer": ' + b"9" * 5000 + b"}", suffix=".jsonl")
@example(content=b"question,answer\n\0,\r\n", suffix=".csv")
@example(content=b'question,answer\na,"' + b"x" * 200_000 + b'"\n', suffix=".csv")
def test_any_bytes_are_read_or_refused(path, content, suffix, accepted):
    accepted(read(path, suffix, content), at_least=0.25)


@settings(max_examples=100)
@given(prompt=TEMPLATES, response=TEMPLATES)
def test_any_template_is_filled_or_refused(path, prompt, response, accepted):
    file = path.with_suffix(".jsonl")
    file.write_text('{"a": "x", "b": 2}\n', encoding="utf-8")
    try:
        (one,) = load_examples(str(file), prompt=prompt, response=response)
    except DataError:
        accepted(False, at_least=0.25)
        return
    accepted(True, at_least=0.25)
    assert [message.role for message in one.messages] == ["user", "assistant"]

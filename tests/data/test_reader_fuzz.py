"""Whatever a file holds, reading it gives examples or a DataError."""

import json

import pytest
from hypothesis import HealthCheck, example, given, settings
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


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "data"


def read(path, suffix, content):
    file = path.with_suffix(suffix)
    file.write_bytes(content)
    try:
        examples = load_examples(str(file))
    except DataError:
        return
    assert examples
    for one in examples:
        assert isinstance(one, Example)
        assert one.messages[-1].role == "assistant"
        assert all(message.content.strip() for message in one.messages)


@pytest.fixture(autouse=True)
def no_hub(monkeypatch):
    """A hub that has nothing."""
    import datasets

    def load_dataset(*args, **options):
        raise datasets.exceptions.DatasetNotFoundError("nothing here")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(source=st.text(max_size=12) | st.text("./~:\0ab", max_size=8))
@example(source="\ud800.jsonl")
@example(source="~\0.json")
@example(source="a/b")
def test_no_name_of_a_source_escapes_as_another_error(source):
    with pytest.raises(DataError):
        load_examples(source)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(ROWS | VALUES, max_size=4), as_array=st.booleans())
def test_any_json_is_read_or_refused(path, rows, as_array):
    text = json.dumps(rows) if as_array else "\n".join(map(json.dumps, rows))
    read(path, ".jsonl", text.encode())


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=60), suffix=st.sampled_from([".jsonl", ".json", ".csv"]))
@example(content=b'{"question": "' + b"9" * 5000 + b'", "answer": ' + b"9" * 5000 + b"}", suffix=".jsonl")
@example(content=b"question,answer\n\0,\r\n", suffix=".csv")
@example(content=b'question,answer\na,"' + b"x" * 200_000 + b'"\n', suffix=".csv")
def test_any_bytes_are_read_or_refused(path, content, suffix):
    read(path, suffix, content)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(prompt=st.text("{}!:.[]ab", max_size=8), response=st.text("{}!:.[]ab", max_size=8))
def test_any_template_is_filled_or_refused(path, prompt, response):
    file = path.with_suffix(".jsonl")
    file.write_text('{"a": "x", "b": 2}\n', encoding="utf-8")
    try:
        (one,) = load_examples(str(file), prompt=prompt, response=response)
    except DataError:
        return
    assert [message.role for message in one.messages] == ["user", "assistant"]

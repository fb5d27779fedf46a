"""From the data section of a recipe to examples and tokens: sources, held-out parts, sets larger than memory."""

import json
import os
from pathlib import Path

import pytest

from qpeft.data import store as storing
from qpeft.data.store import StoredExamples
from qpeft.errors import DataError, OutputError, RecipeError
from qpeft.models import load_tokenizer
from qpeft.training import splits, train
from qpeft.training.sections import DataSection
from qpeft.training.splits import RecipeExamples, load_calibration, load_splits, split_record


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return load_tokenizer(str(tiny_model))


@pytest.fixture
def files(tmp_path):
    """Paths of 20 alpaca rows and of 5 ShareGPT dialogues of two answers."""
    alpaca = [{"instruction": f"Say {i}", "output": str(i)} for i in range(20)]
    shared = [
        {"conversations": [{"from": role, "value": f"{role} {i}"} for role in ("human", "gpt", "human", "gpt")]}
        for i in range(5)
    ]
    paths = tmp_path / "alpaca.jsonl", tmp_path / "shared.json"
    for path, rows in zip(paths, (alpaca, shared), strict=True):
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return [str(path) for path in paths]


@pytest.fixture
def small_shards(monkeypatch, tmp_path):
    """Shards of four examples in a cache of the test's own; returns the parts that are encoded, as they are."""
    encoded, encode = [], splits._encode
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(storing, "SHARD", 4)

    def counted(data, tokenizer, part):
        encoded.append(len(part))
        return encode(data, tokenizer, part)

    monkeypatch.setattr(splits, "_encode", counted)
    return encoded


def answers(data, tokenizer, seed=0):
    examples = RecipeExamples(DataSection.model_validate(data), seed=seed, tokenizer=tokenizer)
    return [example.answer for example in examples.training()]


def test_calibration_text_is_the_start_of_the_training_text_and_little_more_is_encoded(
    files, tokenizer, small_shards, monkeypatch
):
    data = DataSection.model_validate({"train": files[0], "hold_out": 3})
    whole, _ = load_splits(data, tokenizer)
    monkeypatch.setattr(splits, "ENCODED_AT_ONCE", 2)
    small_shards.clear()
    found = load_calibration(data, tokenizer, seed=0, tokens=100)
    lengths = [len(one.input_ids) for one in found]
    assert sum(lengths[:-1]) < 100 <= sum(lengths)
    assert found == list(whole.encoded[: len(found)])
    assert sum(small_shards) <= len(found) + 1 < len(whole.encoded)
    assert load_calibration(data, tokenizer, seed=0, tokens=10**6) == list(whole.encoded)
    with pytest.raises(DataError, match="no example to calibrate on, or all are too long"):
        load_calibration(data.model_copy(update={"max_length": 3, "drop_longer": True}), tokenizer, seed=0, tokens=9)


def test_several_sources_are_mixed_by_weight_and_seed(files, tokenizer):
    data = {"train": [{"path": files[0], "weight": 2, "limit": 3}, files[1]]}
    assert sorted(answers(data, tokenizer)) == sorted(["0", "1", "2"] * 2 + [f"gpt {i}" for i in range(5)])
    assert answers(data, tokenizer) == answers(data, tokenizer) != answers(data, tokenizer, seed=1)


def test_a_source_names_its_own_format(files, tokenizer, tmp_path):
    other = tmp_path / "other.csv"
    other.write_text("q,a\nx,y\n", encoding="utf-8")
    data = {"train": [{"path": str(other), "prompt": "{q}", "response": "{a}"}, files[0]], "limit": 30}
    examples = RecipeExamples(DataSection.model_validate(data), seed=0, tokenizer=tokenizer)
    assert examples.describe() == f"{other}, read as templates; {files[0]}, read as alpaca"
    assert sorted(example.answer for example in examples.training())[-1] == "y"


def test_dialogues_are_held_out_whole_and_once_whatever_the_weights(files, tokenizer):
    data = DataSection(train=[{"path": files[1], "weight": 3}], hold_out=2, answers="each", max_length=64)
    training, held_out = load_splits(data, tokenizer)
    assert len(held_out.examples) == 2 * 2
    assert len(training.examples) == 3 * 3 * 2
    assert not {one.row["conversations"][0]["value"] for one in held_out.examples} & {
        one.row["conversations"][0]["value"] for one in training.examples
    }


def test_a_share_that_holds_nothing_out_is_an_error(files, tokenizer):
    with pytest.raises(DataError, match=r"alpaca.jsonl, read as alpaca: 1e-06 of it is no dialogue; hold out more"):
        load_splits(DataSection(train=files[0], hold_out=1e-6), tokenizer)


@pytest.mark.parametrize("options", [{}, {"drop_longer": True, "max_length": 22}, {"answers": "each"}])
def test_streamed_examples_equal_those_in_memory(files, tokenizer, small_shards, options):
    data = {"train": [files[0], {"path": files[1], "weight": 2}], "hold_out": 0.2, "max_length": 64, **options}
    held, held_out = load_splits(DataSection(**data), tokenizer)
    streamed, held_out_too = load_splits(DataSection(**data, streaming=True), tokenizer)
    assert isinstance(streamed.encoded, StoredExamples)
    assert list(streamed.encoded) == list(held.encoded)
    assert (streamed.summary, held_out.digest) == (held.summary, held_out_too.digest)
    if "drop_longer" not in options:
        assert streamed.digest == held.digest
    assert max(small_shards[-5:]) <= max(4, len(held_out.examples))


def test_streaming_goes_on_where_it_was_interrupted(files, tokenizer, small_shards):
    data = DataSection(train=files[0], streaming=True)
    whole, _ = load_splits(data, tokenizer)
    (folder,) = (Path(os.environ["XDG_CACHE_HOME"]) / "qpeft/data").iterdir()
    wanted = list(whole.encoded)
    (folder / "00004.json").unlink()  # as a kill leaves it
    (folder / "00001.arrow").write_bytes(b"")  # as a power cut may leave it
    small_shards.clear()
    assert list(load_splits(data, tokenizer)[0].encoded) == wanted
    assert small_shards == [4, 4]
    rows = Path(files[0]).read_text().splitlines()
    rows[13] = json.dumps({"instruction": "New", "output": "new"})
    Path(files[0]).write_text("\n".join(rows), encoding="utf-8")
    small_shards.clear()
    changed, _ = load_splits(data, tokenizer)
    assert small_shards == [4]
    assert [one == other for one, other in zip(changed.encoded, wanted, strict=True)].count(False) == 1
    assert changed.digest != whole.digest


def test_streaming_nothing_is_an_error(files, tokenizer, small_shards):
    with pytest.raises(DataError, match="there are no examples, or each of 20 is too long to be kept"):
        load_splits(DataSection(train=files[0], streaming=True, drop_longer=True, max_length=5), tokenizer)


@pytest.mark.slow
def test_the_record_names_the_splits_and_resuming_compares_them(recipe, tokenizer, monkeypatch, small_shards):
    made = recipe(data={"streaming": True}, training={"group_by_length": True}, evaluation={"before": False})
    record = train(made).record
    training, held_out = load_splits(made.data, tokenizer)
    assert record["splits"] == split_record(training, held_out)
    assert [(name, split["examples"]) for name, split in record["splits"].items()] == [("train", 18), ("held_out", 6)]
    path = Path(made.output.folder) / "run.json"
    record["splits"]["train"]["sha256"] = "0" * 64
    path.write_text(json.dumps(record | {"state": "started"}), encoding="utf-8")
    with pytest.raises(OutputError, match=r"The examples changed since the run in .* though no data file did"):
        train(made, resume=True)


@pytest.mark.parametrize(
    ("train_on", "message"),
    [
        ([{"pth": "x"}], r"Unknown key 'data.train.0.pth'; did you mean 'data.train.0.path'\?"),
        ([{"path": "x", "weight": 0}], "'data.train.0.weight' must be greater than 0; got 0"),
        (
            [{"path": "x", "format": "aplaca"}],
            "'data.train.0.format' must be 'messages', 'sharegpt', 'alpaca'",
        ),
        ([], "'data.train' must not be empty"),
        (5, "'data.train' must be a name or a list; got 5"),
        ([{}], "'data.train.0.path' is missing"),
    ],
)
def test_bad_sources_are_named_by_their_keys(recipe, train_on, message):
    with pytest.raises(RecipeError, match=message):
        recipe(data={"train": train_on})


def test_a_part_of_a_dialogue_cannot_be_held_out(recipe):
    with pytest.raises(
        RecipeError, match=r"hold_out is a share below 1, such as 0.05, or a whole number of dialogues; got 2.5"
    ):
        recipe(data={"hold_out": 2.5})

"""Studies that cannot be judged are refused before they train, and may be mended until something has been judged."""

import json
import shutil

import pytest

from qpeft.comparison import compare
from qpeft.comparison.study import parse_study
from qpeft.comparison.study_log import StudyLog
from qpeft.comparison.trial_jobs import Job
from qpeft.comparison.trial_work import WORK
from qpeft.errors import DataError, ModelError, StudyError

SHORT = {"learning_rates": [0.01], "seeds": [0], "ablate": []}


@pytest.fixture
def make(study_values, tmp_path):
    """A function: the study in tmp_path/study with one run a method, its recipe's sections changed by keyword."""

    def parse(*, data=None, evaluation=None, **changes):
        values = study_values(tmp_path / "study", **SHORT | changes)
        recipe = values["recipe"] = dict(values["recipe"])
        recipe["data"] = recipe["data"] | (data or {})
        recipe["evaluation"] = recipe["evaluation"] | (evaluation or {})
        return parse_study(values, source="test")

    return parse


@pytest.fixture
def write(tmp_path):
    """A function: a test file of these rows, the last of which is long if asked for."""

    def rows(count=4, *, long=False, name="asked.jsonl", answer="{}"):
        found = [{"question": f"Add {n} to 1.", "answer": answer.format(n + 1)} for n in range(count)]
        if long:
            found[1]["question"] += " please" * 200
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in found))
        return str(path)

    return rows


@pytest.fixture
def trained(monkeypatch):
    """Names of the trials that are trained, as they are."""
    found, run = [], Job.run
    monkeypatch.setattr(Job, "run", lambda self: (found.append(self.title) if self.do == "train" else 0, run(self)))
    return found


@pytest.fixture
def unjudged(make, tmp_path, monkeypatch):
    """A study of which everything was trained and nothing could be judged, and the function that makes it again."""

    def breaks(**_):
        raise DataError("answer wholly cut off")

    with monkeypatch.context() as patch:
        patch.setitem(WORK, "measure", breaks)
        assert compare(make(), processes=None).measured == ()
    return tmp_path / "study", make


def ledger(folder):
    return StudyLog.read(folder).values


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"test": {"long": True}, "data": {"max_length": 100}},
            DataError,
            r"asked.jsonl:2: answer wholly cut off: .* data.max_length to \d+ or more, .* data.drop_longer: true",
        ),
        ({"test": {"count": 1}}, StudyError, "is one item, from which nothing can be told of others"),
        ({"test": {"answer": "many"}}, DataError, r"asked.jsonl:1: .*ends on none"),
        ({"test": {"answer": ""}}, DataError, r"asked.jsonl:1: 'answer' is empty"),
        ({"data": {"max_length": 5}}, DataError, r"sums.jsonl:\d+: answer wholly cut off"),
        ({"evaluation": {"max_new_tokens": 99999}}, DataError, "an answer of up to 99,999 included"),
    ],
)
def test_what_cannot_be_judged_is_refused_before_anything_is_trained(
    make, write, tmp_path, trained, changes, error, message
):
    changes = changes | ({"test": write(**changes["test"])} if "test" in changes else {})
    with pytest.raises(error, match=message):
        compare(make(**changes), processes=None)
    assert trained == []
    assert not (tmp_path / "study").exists()


def test_a_test_with_a_token_that_the_model_has_no_place_for_is_refused(make, write, tmp_path, tiny_model, trained):
    from transformers import AutoTokenizer

    folder = shutil.copytree(tiny_model, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|call|>"]})
    tokenizer.save_pretrained(folder)
    study = make(test=write(answer="<|call|>{}"))
    study.recipe["model"] = {"name": str(folder)}
    with pytest.raises(DataError, match=r"asked.jsonl:1: the token '<\|call\|>' has the id 289"):
        compare(study, processes=None)
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.save_pretrained(folder)
    with pytest.raises(ModelError, match="pads with a token that the model does not have"):
        compare(study, processes=None)
    assert trained == []


def test_test_items_are_counted_without_those_that_are_left_out(make, write):
    short, silent = {"max_length": 100, "drop_longer": True}, {"task": None, "exact_match": False}
    study = make(test=write(6, long=True), test_items=4, data=short, evaluation=silent)
    assert compare(study, processes=None).num_items == 4


@pytest.mark.parametrize("name", ["test", "test_items", "data", "common", "edited"])
def test_until_something_is_judged_a_study_may_be_mended_and_says_so(unjudged, write, trained, name, test_file):
    folder, make = unjudged
    assert ledger(folder)["test_readings"] == []
    assert len(ledger(folder)["failed_readings"]) == 1
    other = write(3)
    stored = ledger(folder)
    if name == "edited":  # the file was another one when the study began
        stored["inputs"]["hashes"][str(test_file)] = "0" * 64
        (folder / "study.json").write_text(json.dumps(stored))
    change = {
        "test": {"test": other},
        "test_items": {"test_items": 5},
        "data": {"data": {"max_length": 300}},
        "common": {"common": {"target_modules": ["q_proj"]}},
        "edited": {},
    }[name]
    results = compare(make(**change), processes=None)
    assert results.gaps == ()
    assert results.num_items == {"test": 3, "test_items": 5}.get(name, 12)
    # Trainings are known by what they depend on: another test needs none anew.
    assert len(trained) == (2 if name in ("data", "common") else 0)
    (amendment,) = ledger(folder)["amendments"]
    says = {"data": ["recipe"], "edited": ["data files"], "test": ["test", "data files"]}.get(name, [name])
    assert amendment["changed"][0] == says[0]
    assert amendment["test_readings_before"] == 0
    assert len(ledger(folder)["test_readings"]) == 1
    with pytest.raises(StudyError, match=r"begun with another recipe, which must not change"):
        compare(make(**change | {"data": {"max_length": 200}}), processes=None)


def test_a_study_that_ended_before_readings_had_results_written_down_may_be_mended(unjudged, write):
    folder, make = unjudged
    stored = ledger(folder)
    stored["test_readings"] = [{"when": "then", "chosen": {}}]  # as earlier versions left it
    del stored["failed_readings"]
    (folder / "study.json").write_text(json.dumps(stored))
    assert compare(make(test=write(3)), processes=None).num_items == 3
    assert ledger(folder)["failed_readings"] == [{"when": "then", "chosen": {}}]


@pytest.mark.parametrize("change", [{"margin": 0.5}, {"reference": "QTHA"}])
def test_what_claims_rest_on_stays_once_a_run_has_finished(unjudged, change):
    _, make = unjudged
    with pytest.raises(StudyError, match=f"begun with another {next(iter(change))}"):
        compare(make(**change), processes=None)


def test_nothing_is_fixed_where_nothing_was_trained(make, monkeypatch, tmp_path, write):
    def breaks(**_):
        raise MemoryError("none left")

    with monkeypatch.context() as patch:
        for work in WORK:
            patch.setitem(WORK, work, breaks)
        compare(make(), processes=None)
    results = compare(make(margin=0.5, reference="QTHA", test=write(3)), processes=None)
    assert results.gaps == ()
    changed = ledger(tmp_path / "study")["amendments"][0]["changed"]
    assert {"margin", "reference", "test"} <= set(changed)


def test_a_reading_that_was_killed_is_one(unjudged, write):
    """Whatever it measured, somebody may have seen."""
    folder, make = unjudged
    stored = ledger(folder)
    stored["test_readings"] = stored.pop("failed_readings")
    del stored["test_readings"][0]["results"]
    (folder / "study.json").write_text(json.dumps(stored))
    for file in folder.rglob("measured-*.json"):
        file.unlink()
    with pytest.raises(StudyError, match="begun with another test"):
        compare(make(test=write(3)), processes=None)


def test_deleting_results_of_a_test_does_not_make_it_unread(unjudged, write):
    folder, make = unjudged
    failed = {file: file.read_text() for file in folder.rglob("measured-*.json")}
    assert compare(make(), processes=None).gaps == ()
    for file, content in failed.items():
        file.write_text(content)
    assert len(ledger(folder)["test_readings"]) == 1
    with pytest.raises(StudyError, match="begun with another test"):
        compare(make(test=write(3)), processes=None)


def test_without_a_test_every_run_is_judged_and_fixes_the_recipe(make, sums, tmp_path):
    more = tmp_path / "more.jsonl"  # of which a tenth is more than one item
    rows = [json.dumps({"question": f"What is {a} and {b}?", "answer": str(a + b)}) for a in range(9) for b in range(9)]
    more.write_text("\n".join(rows))
    data = {"train": str(more)}
    results = compare(make(test=None, data=data), processes=None)
    assert results.gaps == ()
    assert ledger(tmp_path / "study")["test_readings"] == []
    for change in ({"data": data | {"max_length": 300}}, {"data": data, "test": str(sums)}):
        with pytest.raises(StudyError, match="which must not change once there are results"):
            compare(make(**{"test": None} | change), processes=None)

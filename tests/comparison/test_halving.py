"""Successive halving: which rates short trainings leave, and what the report says of the others."""

import json
from pathlib import Path

import pytest

from qpeft.comparison import compare, load_results
from qpeft.comparison.report import write_report
from qpeft.comparison.study import parse_study
from qpeft.comparison.trials import halve, plan_trials, read_inputs
from qpeft.runs import read_record

RATES = [0.001, 0.01, 0.1]


@pytest.fixture(scope="module")
def halved(study_values, tmp_path_factory):
    """A finished study that trains one step at three rates, two steps at two, and all three at one."""
    folder = tmp_path_factory.mktemp("halved") / "study"
    values = study_values(folder, learning_rates=RATES, seeds=[0], halving=[1, 2], ablate=[], test_items=4)
    values["recipe"]["evaluation"] = {}
    study = parse_study(values, source="test")
    return study, compare(study, processes=None)


def test_after_each_short_training_the_better_half_of_the_rates_goes_on(halved):
    study, results = halved
    found = halve(study, read_inputs(study))
    for method in study.methods:
        left = RATES
        for steps, count in ((1, 2), (2, 1)):
            ran = [one for one in found.trials if one.method == method and one.recipe.training.steps == steps]
            assert sorted(one.rate for one in ran) == sorted(left)
            losses = {}
            for one in ran:
                items = read_record(one.run)["after"]["items"]
                losses[one.rate] = sum(items["nats"]) / sum(items["tokens"])
                assert read_record(one.run)["steps"] == steps
            left = sorted(losses, key=losses.get)[:count]
        assert found.left[method] == left
        (trained,) = [one for one in plan_trials(study, read_inputs(study)) if one.method == method]
        assert (trained.rate, read_record(trained.run)["steps"]) == (left[0], 3)
    assert {choice.method: choice.rate for choice in results.choices} == {m: r[0] for m, r in found.left.items()}


def test_the_report_names_what_was_dropped_and_the_records_keep_it(halved):
    study, _ = halved
    folder = write_report(*load_results(Path(study.output.folder))).parent
    text = (folder / "report.md").read_text()
    assert "halved after short trainings of 1 and 2 steps" in text
    assert text.count("dropped after 1 steps") == text.count("dropped after 2 steps") == 2
    stored = json.loads((folder / "results.json").read_text())
    assert stored["study"]["halving"] == [1, 2]
    assert [len(choice["dropped"]) for choice in stored["choices"]] == [2, 2]


def test_a_study_without_the_rule_has_the_hash_that_it_had(study_values, tmp_path):
    study = parse_study(study_values(tmp_path), source="test")
    assert study.digest() == parse_study(study_values(tmp_path, halving=None), source="test").digest()
    assert study.digest() != parse_study(study_values(tmp_path, halving=[1]), source="test").digest()

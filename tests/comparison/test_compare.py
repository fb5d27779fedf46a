"""Studies of the tiny model from beginning to end, and what happens when something goes wrong on the way."""

import io
import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from qpeft.comparison import compare, load_results
from qpeft.comparison.figures import curves, pictures, rates_picture
from qpeft.comparison.records import from_record, to_record
from qpeft.comparison.report import write_report
from qpeft.comparison.results import BETTER, NO_WORSE, UNDECIDED, WORSE, verdict
from qpeft.comparison.study import parse_study
from qpeft.comparison.study_log import StudyLog
from qpeft.comparison.trial_jobs import Job, run_all
from qpeft.comparison.trial_work import WORK
from qpeft.comparison.trials import choose, plan_trials, read_inputs
from qpeft.data import hold_out, load_examples
from qpeft.errors import StudyError
from qpeft.evaluation import held_out_loss
from qpeft.evaluation.statistics import Difference
from qpeft.models import load_model
from qpeft.runs import read_record


@pytest.fixture
def copied(finished, study_values, tmp_path):
    """A copy of the finished study's folder, and a function that makes its study with keys changed by keyword."""
    shutil.copytree(finished[0], tmp_path / "study")
    return tmp_path / "study", lambda **changes: parse_study(study_values(tmp_path / "study", **changes), source="test")


def trials_of(folder):
    ledger = StudyLog.read(folder)
    return plan_trials(ledger.study, ledger.inputs)


def test_every_method_has_every_rate_and_seed_and_the_same_batches_per_seed(finished):
    folder, results = finished
    records = {(one.method, one.rate, one.seed): read_record(one.run) for one in trials_of(folder)}
    assert len(records) == 2 * 2 * 2
    orders = {seed: {record["order"] for key, record in records.items() if key[2] == seed} for seed in (0, 1)}
    assert [len(found) for found in orders.values()] == [1, 1]
    assert orders[0] != orders[1]
    assert results.gaps == ()


def test_a_rate_is_chosen_by_a_tenth_of_the_training_file_alone(finished, sums):
    folder, results = finished
    _, tenth = hold_out(load_examples(str(sums)), 0.1)
    for choice in results.choices:
        found = {rate: [] for rate in (0.003, 0.01)}
        for trial in trials_of(folder):
            if trial.method == choice.method:
                after = read_record(trial.run)["after"]
                assert len(after["items"]["tokens"]) == len(tenth)
                found[trial.rate].append(sum(after["items"]["nats"]) / sum(after["items"]["tokens"]))
        assert choice.rate == min(found, key=lambda rate: np.mean(found[rate]))
        assert choice.is_at_edge


def test_the_losses_are_those_of_the_saved_adapters_on_the_test(finished, test_file):
    from qpeft.adapters.load import load_adapter
    from qpeft.data import encode_all
    from qpeft.models import load_tokenizer

    folder, results = finished
    one = results.of("QTHA")
    trial = next(t for t in trials_of(folder) if (t.method, t.rate, t.seed) == ("QTHA", results.choices[0].rate, 1))
    name = trial.recipe.model.name
    encoded = encode_all(load_tokenizer(name), load_examples(str(test_file)))
    model = load_adapter(load_model(name), trial.run)
    expected = [held_out_loss(model, [item]).loss * held_out_loss(model, [item]).tokens for item in encoded]
    assert one.nats[1] == pytest.approx(expected, rel=1e-4)
    assert one.loss.per_seed[1] == pytest.approx(held_out_loss(model, encoded).loss, rel=1e-4)
    assert one.right.shape == (2, 4)


def test_running_again_runs_nothing_and_reads_the_test_no_more(copied, monkeypatch):
    folder, study = copied
    monkeypatch.setattr(Job, "run", lambda self: pytest.fail(self.title))
    results = compare(study(), processes=None)
    again, ledger = load_results(folder)
    assert [one.loss for one in again.measured] == [one.loss for one in results.measured]
    assert len(ledger.values["test_readings"]) == 1


def test_another_seed_is_run_beside_what_is_there_and_written_down(copied, monkeypatch):
    folder, study = copied
    done = []
    run = Job.run
    monkeypatch.setattr(Job, "run", lambda self: (done.append(self.do), run(self)))
    results = compare(study(seeds=[0, 1, 2]), processes=None)
    assert done.count("train") == 4
    assert len(results.of("LoRA").loss.per_seed) == 3
    values = StudyLog.read(folder).values
    assert values["amendments"][0]["changed"] == ["seeds"]
    assert values["amendments"][0]["test_readings_before"] == 1
    assert len(values["test_readings"]) == 2


@pytest.mark.parametrize("changes", [{"margin": 0.5}, {"reference": "QTHA"}, {"test_items": 3}, {"test": None}])
def test_what_was_fixed_stays(copied, changes):
    _, study = copied
    with pytest.raises(StudyError, match=f"another {next(iter(changes))}"):
        compare(study(**changes), processes=None)


def test_edited_data_are_noticed(copied, tmp_path, test_file):
    folder, study = copied
    stored = StudyLog.read(folder).values
    stored["inputs"]["hashes"][str(test_file)] = "0" * 64
    (folder / "study.json").write_text(json.dumps(stored))
    with pytest.raises(StudyError, match=r"test\.jsonl has another"):
        compare(study(), processes=None)
    with pytest.raises(StudyError, match=r"test\.jsonl has another"):
        load_results(folder)


def test_a_run_on_other_batches_is_noticed(copied):
    folder, study = copied
    trials = trials_of(folder)
    record = read_record(trials[3].run)
    (trials[3].run / "run.json").write_text(json.dumps(record | {"order": "other"}))
    with pytest.raises(StudyError, match="same examples in the same order"):
        choose(study(), read_inputs(study()))


def test_seeds_that_choose_nothing_are_trained_at_the_chosen_rate_alone(copied):
    folder, study = copied
    shutil.rmtree(folder)
    results = compare(study(tuning_seeds=[1]), processes=None)
    runs = [json.loads(path.read_text()) for path in folder.glob("trials/*/run/run.json")]
    rates = {name: {0: set(), 1: set()} for name in ("qtha", "lora")}
    for run in runs:
        rates[run["recipe"]["adapter"]["type"]][run["recipe"]["seed"]].add(run["recipe"]["training"]["learning_rate"])
    assert len(runs) == 2 * 2 + 2
    for choice, name in zip(results.choices, ("qtha", "lora"), strict=True):
        assert rates[name] == {0: {choice.rate}, 1: {0.003, 0.01}}
        assert all(len(losses) == 1 for losses in choice.losses.values())
        assert choice.rate == min(choice.losses, key=lambda rate: choice.losses[rate])
    assert [one.nats.shape for one in results.measured] == [(2, 12), (2, 12)]
    assert results.gaps == ()
    again, ledger = load_results(folder)
    assert again.choices == results.choices
    assert "1 of the 2 seeds" in write_report(again, ledger).read_text()


def test_contrasts_are_compared_directly_and_all_comparisons_corrected_together(copied, study_values):
    folder, study = copied
    methods = study_values(folder)["methods"]
    before = load_results(folder)[0].of("QTHA").against
    # Of equal configuration, so that it finds LoRA's runs and the difference is known.
    changed = study(methods=methods | {"Twin": methods["LoRA"]}, contrasts=[("QTHA", "Twin")])
    results = compare(changed, processes=None)
    (contrast,) = results.contrasts
    assert (contrast.method, contrast.other) == ("QTHA", "Twin")
    assert contrast.against.loss == results.of("QTHA").against.loss == before.loss
    assert results.of("Twin").against.loss.per_seed == (0, 0)
    # Of three comparisons two are alike and one is certain to be none: Holm takes the smallest p three times.
    assert before.p == before.loss.p
    assert contrast.against.p == pytest.approx(min(1, 3 * before.loss.p))
    stored, ledger = load_results(folder)
    assert stored.contrasts == results.contrasts
    page = write_report(stored, ledger).read_text(encoding="utf-8")
    assert "<td" in page.split("QTHA minus Twin")[1][:200]
    assert from_record(to_record(results, ledger), folder)[0].contrasts == results.contrasts
    assert [change["changed"] for change in ledger.values["amendments"]] == [["methods", "contrasts"]]


def test_a_seed_that_fails_after_the_choice_leaves_its_method_without_a_result(copied, monkeypatch):
    folder, study = copied
    shutil.rmtree(folder)

    def train(recipe):
        if recipe["seed"] == 0 and recipe["adapter"]["type"] == "lora":
            raise RuntimeError("out of luck")
        return train_trial(recipe)

    train_trial = WORK["train"]
    monkeypatch.setitem(WORK, "train", train)
    results = compare(study(tuning_seeds=[1]), processes=None)
    rate = next(choice.rate for choice in results.choices if choice.method == "LoRA")
    reason = f"learning rate {rate:g}, seed 0: RuntimeError: out of luck"
    assert results.missing == {"LoRA": reason}
    assert f"LoRA, {reason}" in results.gaps
    assert [one.method for one in results.measured] == ["QTHA"]


def test_test_items_that_are_trained_on_are_refused(study_values, tmp_path, sums):
    copy = tmp_path / "test.jsonl"
    copy.write_text(sums.read_text().splitlines()[5] + "\n")
    with pytest.raises(StudyError, match=r"1 of 1 test items are asked in the training file too, .*test.jsonl:1"):
        compare(parse_study(study_values(tmp_path / "study", test=str(copy)), source="test"), processes=None)
    assert not (tmp_path / "study").exists()


def test_a_run_that_breaks_is_a_gap_and_is_tried_again(study_values, tmp_path, monkeypatch):
    study = parse_study(study_values(tmp_path / "study", learning_rates=[0.01], seeds=[0]), source="test")
    train = WORK["train"]

    def breaks(recipe):
        if recipe["adapter"]["type"] == "qtha":
            raise ValueError("the machine caught fire")
        return train(recipe)

    monkeypatch.setitem(WORK, "train", breaks)
    results = compare(study, processes=None)
    assert [one.method for one in results.measured] == ["LoRA"]
    assert "QTHA, learning rate 0.01, seed 0: ValueError: the machine caught fire" in results.gaps
    monkeypatch.setitem(WORK, "train", train)
    assert compare(study, processes=None).gaps == ()


def test_a_study_in_which_everything_breaks_has_a_report_of_gaps(study_values, tmp_path, monkeypatch):
    def breaks(**_):
        raise MemoryError("none left")

    for name in WORK:
        monkeypatch.setitem(WORK, name, breaks)
    compare(parse_study(study_values(tmp_path / "study"), source="test"), processes=None)
    results, ledger = load_results(tmp_path / "study")
    write_report(results, ledger)
    report = (tmp_path / "study" / "report.md").read_text()
    assert "Nothing can be compared" in report
    # Every run, the base model, and a row of the table for each method.
    assert report.count("MemoryError: none left") == 2 * 2 * 2 + 1 + 2


def test_a_process_that_dies_is_a_gap_with_its_reason(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "")
    (tmp_path / "qpeft").mkdir()  # a package that has no such module: the process ends before it can say anything
    (tmp_path / "qpeft" / "__init__.py").write_text("import os; os.abort()")
    monkeypatch.chdir(tmp_path)
    job = Job("title", tmp_path / "trial", "trained", "train", {"recipe": {}})
    job.run_alone(threads=1)
    assert job.result() is None
    assert job.failure().startswith("its process ended with signal 6; see ")


def test_a_process_of_its_own_tells_what_went_wrong(tmp_path):
    job = Job("title", tmp_path / "trial", "trained", "train", {"recipe": {}})
    run_all([job], processes=1)
    assert job.failure() == "trial: 'model' is missing. 'data' is missing. 'output' is missing."
    assert "Traceback" in job.log_file.read_text()


def difference(low, high):
    return Difference((low + high) / 2, low, high, 0.0, 0.0, ())


@pytest.mark.parametrize(
    ("low", "high", "p", "expected"),
    [
        (-0.03, -0.01, 0.01, BETTER),
        (-0.03, -0.01, 0.2, NO_WORSE),  # many comparisons: the correction takes the first claim, not the second
        (-0.01, 0.009, 0.9, NO_WORSE),
        (0.001, 0.009, 0.01, NO_WORSE),
        (-0.01, 0.011, 0.9, UNDECIDED),
        (0.01, 0.03, 0.01, WORSE),
        (0.01, 0.03, 0.2, UNDECIDED),
    ],
)
def test_a_verdict_follows_from_interval_margin_and_corrected_p(low, high, p, expected):
    assert verdict(difference(low, high), p, margin=0.01) == expected


def test_a_study_says_how_far_it_is_in_a_file_and_on_a_terminal(study_values, tmp_path):
    values = study_values(tmp_path / "study", learning_rates=[0.01], seeds=[0], ablate=[])
    values["recipe"] = values["recipe"] | {"evaluation": {}}
    written = Console(file=io.StringIO(), width=200)
    compare(parse_study(values, source="test"), processes=None, console=written)
    said = written.file.getvalue()
    assert "training at every rate: 2 runs" in said
    assert re.search(r"^1/2  QTHA.*: trained in \d+ s, about \d:\d\d:\d\d left$", said, re.MULTILINE)
    assert re.search(r"^2/2  LoRA.*: trained in \d+ s$", said, re.MULTILINE)
    assert "judging: 3 runs" in said
    assert "\x1b" not in said
    values["output"] = {"folder": str(tmp_path / "again")}
    terminal = Console(file=io.StringIO(), width=200, force_terminal=True, highlight=False)
    compare(parse_study(values, source="test"), processes=None, console=terminal)
    drawn = terminal.file.getvalue()
    assert "training at every rate" in drawn
    assert "\x1b[?25h" in drawn


def test_curves_of_a_study_hold_the_held_out_losses_that_were_measured(finished):
    folder, results = finished
    for one in results.measured:
        for history, trial in zip(one.histories, runs_of(folder, one.method, results), strict=True):
            after = read_record(trial.run)["after"]["loss"]
            assert [entry for entry in history if "held_out" in entry] == [{"step": 3, "held_out": after}]
    assert "Hollow: loss on the held-out tenth after training." in curves(results).title
    both = [
        replace(one, histories=tuple([*history, {"step": 0, "held_out": 9.0}] for history in one.histories))
        for one in results.measured
    ]
    assert "before and after training" in curves(replace(results, measured=tuple(both))).title


def runs_of(folder, method, results):
    """The runs of a method at its chosen rate, in the order of their seeds."""
    rate = next(choice.rate for choice in results.choices if choice.method == method)
    return [trial for trial in trials_of(folder) if trial.method == method and trial.rate == rate]


def test_a_study_without_logged_losses_has_no_empty_axes(finished):
    results = finished[1]
    silent = [replace(one, histories=([],) * len(one.histories)) for one in results.measured]
    assert curves(replace(results, measured=tuple(silent))) is None
    assert rates_picture(replace(results, choices=())) is None
    (only,) = pictures(replace(results, measured=tuple(silent)))
    assert only.title.startswith("Parameters against loss")

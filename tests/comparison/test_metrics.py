"""Answers that a task graded, in studies: figures by hand, and a study of GSM8K from beginning to end."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from qpeft.comparison import compare, load_results, summary_text
from qpeft.comparison.records import read_records, to_record
from qpeft.comparison.report import write_report
from qpeft.comparison.study import parse_study
from qpeft.comparison.trials import plan_trials, read_inputs
from qpeft.errors import TaskError
from qpeft.evaluation.metrics import graded, metrics_by_title, overall, with_comparisons


def of_gsm8k(strict, flexible):
    """Scores of one seed as they are stored."""
    return {
        "task": "gsm8k",
        "answered": len(strict),
        "metrics": {"strict": np.mean(strict), "flexible": np.mean(flexible)},
        "items": {
            "right": [bool(one) for one in strict],
            "grades": {"strict": strict, "flexible": flexible},
            "examples": list(range(len(strict))),
        },
    }


def of_dialogues(grades, examples):
    return {
        "task": "cpsycound",
        "answered": len(grades),
        "metrics": {"bleu_4": 0.25, "rouge_1": np.mean(grades)},
        "items": {"right": [], "grades": {"rouge_1": grades}, "examples": examples},
    }


def test_both_grades_of_gsm8k_are_compared_by_exact_tests_corrected_for_their_number():
    method = graded([of_gsm8k([1, 1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1])])
    reference = graded([of_gsm8k([0, 0, 0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1, 0])])
    strict, flexible = with_comparisons({"QTHA": method}, reference)["QTHA"]
    assert (strict.title, flexible.title) == ("strict", "flexible")
    assert strict.value.estimate == 6 / 8
    assert strict.against.estimate == 6 / 8
    # Six of six items in favour, two-sided; then twice that, for two metrics.
    assert strict.p == pytest.approx(2 * 2 * 0.5**6)
    assert flexible.against.estimate == 1 / 8
    assert flexible.p == 1


def test_dialogues_and_not_turns_are_the_items():
    # Three turns of one dialogue and one each of two others: a mean over turns, an interval over dialogues.
    one = of_dialogues([0.6, 0.6, 0.6, 0.2, 0.4], [0, 0, 0, 1, 2])
    (rouge,) = graded([one, one])
    assert rouge.counts.tolist() == [3, 1, 1]
    assert rouge.sums == pytest.approx(np.array([[1.8, 0.2, 0.4]] * 2))
    assert rouge.value.estimate == pytest.approx(2.4 / 5)
    assert overall([one, one]) == {"BLEU-4": 0.25}
    assert metrics_by_title(one)["BLEU-4"] == 0.25
    other = of_dialogues([0.5, 0.5, 0.5, 0.3, 0.1], [0, 0, 0, 1, 2])
    ((compared,),) = with_comparisons({"QTHA": graded([one])}, graded([other])).values()
    assert compared.against.estimate == pytest.approx((0.3 - 0.1 + 0.3) / 5)
    assert compared.p == 1.0  # two dialogues up and one down


def test_scores_from_before_there_were_tasks_are_exact_matches():
    scores = {"answered": 4, "items": {"right": [True, False, True, True]}}
    (found,) = graded([scores])
    assert (found.title, found.value.estimate) == ("exact match", 0.75)
    assert overall([scores]) == metrics_by_title(scores) == {}
    assert graded([{"answered": 0, "items": {"right": []}}]) == ()


def test_one_answer_tells_nothing_of_others():
    assert graded([of_gsm8k([1], [1])]) == ()


@pytest.fixture
def gsm8k_study(study_values, tmp_path):
    """A function: a study whose test has GSM8K's form, with keys changed by keyword."""
    test = tmp_path / "gsm8k.jsonl"
    rows = [{"question": f"Add {n} to 1.", "answer": f"It is {n + 1}.\n#### {n + 1}"} for n in range(6)]
    test.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def make(**evaluation):
        values = study_values(tmp_path / "study", test=str(test), learning_rates=[0.003], seeds=[0], ablate=[])
        values["recipe"]["evaluation"] = evaluation
        return parse_study(values, source="test")

    return make


def test_a_study_of_gsm8k_reports_both_grades_of_all_methods(gsm8k_study, monkeypatch):
    calls = []

    def generate(_model, _tokenizer, questions, **_):
        calls.append(len(questions))
        right = len(calls)  # of the base model, then of each method
        return [f"#### {n + 1}" if n < right else f"so {n + 1}" for n in range(len(questions))]

    monkeypatch.setattr("qpeft.evaluation.scores.generate", generate)
    results = compare(gsm8k_study(task="gsm8k", items=5), processes=None)
    assert calls == [5, 5, 5]
    assert results.gaps == ()
    assert results.base_metrics == {"strict": 1 / 5, "flexible": 1}
    by_method = {one.method: {metric.title: metric for metric in one.graded} for one in results.measured}
    assert by_method["QTHA"]["strict"].value.estimate == 2 / 5
    assert by_method["QTHA"]["strict"].against.estimate == pytest.approx(2 / 5 - 3 / 5)
    assert by_method["LoRA"]["strict"].against is None
    assert results.of("QTHA").exact_match == 2 / 5
    assert results.of("QTHA").against.answers == pytest.approx(-1 / 5)
    assert results.of("QTHA").against.answers_p == 1
    assert "It answers 40.0% right (strict), -20.0 points against LoRA" in summary_text.sentences(results)[0]

    folder = Path(results.study.output.folder)
    page = write_report(*load_results(folder)).read_text(encoding="utf-8")
    assert '<h2 id="graded">Answers</h2>' in page
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert "| without an adapter | strict | 20.0 |  |  |" in text
    assert "| QTHA | flexible | 100.0, all alike | +0.0 (+0.0 to +0.0) | p = 1.000 |" in text
    record = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert record["base_metrics"] == {"strict": 0.2, "flexible": 1.0}
    assert [metric["metric"] for metric in record["measured"][0]["graded"]] == ["strict", "flexible"]
    assert to_record(*read_records(folder / "results.json")) == record


def test_a_missing_package_ends_a_study_before_anything_is_trained(gsm8k_study, monkeypatch):
    monkeypatch.setitem(sys.modules, "math_verify", None)
    study = gsm8k_study(task="math")
    with pytest.raises(TaskError, match="math is graded by math-verify, and math-verify cannot be imported"):
        compare(study, processes=None)
    assert not (Path(study.output.folder) / "trials").exists()


def test_runs_of_studies_without_a_task_are_found_where_they_were_before_there_were_tasks(gsm8k_study, monkeypatch):
    contents = []

    def digest(values):
        contents.append(values)
        return "0" * 16

    study = gsm8k_study(items=4)
    inputs = read_inputs(study)
    monkeypatch.setattr("qpeft.comparison.trials._digest", digest)
    plan_trials(study, inputs)
    assert contents[0]["recipe"]["evaluation"] == {
        "before": False,
        "exact_match": False,
        "items": 4,
        "max_new_tokens": 64,
    }

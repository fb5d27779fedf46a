"""A task that a recipe names: asked before anything takes time, and what is left of it in record and card."""

import json
import sys
from typing import get_args

import pytest

from qpeft.errors import RecipeError, TaskError
from qpeft.evaluation import TASKS
from qpeft.training import train
from qpeft.training.sections import TaskName


@pytest.fixture
def gsm8k(tmp_path):
    path = tmp_path / "gsm8k.jsonl"
    rows = [{"question": f"Add {n} to 1.", "answer": f"It is {n + 1}.\n#### {n + 1}"} for n in range(4)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"eval": str(path), "hold_out": None}


def test_both_grades_are_in_the_record_and_on_the_card(recipe, gsm8k, tmp_path, monkeypatch):
    texts = iter([["1", "2", "3", "#### 5"], ["#### 1", "#### 2", "7", "9"]])
    monkeypatch.setattr("qpeft.evaluation.scores.generate", lambda *_, **__: next(texts))
    record = train(recipe(data=gsm8k, evaluation={"task": "gsm8k"}, training={"steps": 1})).record
    assert record["before"]["task"] == "gsm8k"
    # The right numbers are 1, 2, 3 and 4: without the mark, the first three count as flexible only.
    assert record["before"]["metrics"] == {"strict": 0, "flexible": 3 / 4}
    assert record["after"]["metrics"] == {"strict": 0.5, "flexible": 0.5}
    assert record["after"]["samples"][0]["grades"] == {"strict": 1, "flexible": 1}
    card = (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    assert "| strict (4 answers) | 0.0% | 50.0% |" in card
    assert "| flexible (4 answers) | 75.0% | 50.0% |" in card


def test_a_missing_package_is_said_before_anything_is_done(recipe, gsm8k, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rouge_score", None)
    with pytest.raises(TaskError, match="graded by sacrebleu and rouge-score, and rouge-score cannot be imported"):
        train(recipe(data=gsm8k, evaluation={"task": "cpsycound"}))
    assert not (tmp_path / "run").exists()


def test_recipes_know_every_task():
    assert get_args(TaskName) == tuple(TASKS)


@pytest.mark.parametrize(
    ("evaluation", "message"),
    [
        ({"task": "gsm9k"}, "gsm8k"),
        ({"task": "cpsycoune"}, "cpsycound"),
        ({"task": "gsm8k", "exact_match": True}, "give one of them"),
    ],
)
def test_tasks_that_cannot_be_are_refused(recipe, evaluation, message):
    with pytest.raises(RecipeError, match=message):
        recipe(evaluation=evaluation)

"""The generator of the demo's word problems, checked by an evaluator of its own."""

import ast
import importlib.util
import json
import operator
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "examples" / "demo" / "word_problems.py"
OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


@pytest.fixture(scope="module")
def word_problems():
    spec = importlib.util.spec_from_file_location("word_problems", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def steps(equation):
    """Values of all steps of an equation, the whole last, as exact fractions."""

    def visit(node):
        if isinstance(node, ast.Constant):
            return Fraction(node.value)
        values.append(OPERATORS[type(node.op)](visit(node.left), visit(node.right)))
        return values[-1]

    values = []
    visit(ast.parse(equation, mode="eval").body)
    return values


def test_equations_give_the_answers_by_positive_whole_steps(word_problems):
    for row in word_problems.generate(2000, seed=1):
        values = steps(row["equation"])
        assert all(value > 0 and value.denominator == 1 for value in values), row
        assert str(values[-1]) == row["answer"], row


def test_numbers_of_the_equation_stand_in_the_question(word_problems):
    for row in word_problems.generate(500, seed=2):
        numbers = [word for word in row["equation"].replace("(", "").replace(")", "").split() if word.isdigit()]
        words = row["question"].replace(".", " ").replace(",", " ").split()
        assert not Counter(numbers) - Counter(words), row


def test_at_least_forty_sentences_all_used(word_problems):
    assert sum(len(set(sentences)) for sentences in word_problems.SENTENCES.values()) >= 40
    used = {row["equation"].translate(dict.fromkeys(map(ord, "0123456789"))) for row in word_problems.generate(500, 0)}
    assert len(used) == len(word_problems.SENTENCES)


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not(word_problems, tmp_path):
    for folder, seed in (("one", "0"), ("two", "0"), ("three", "1")):
        arguments = ["--folder", str(tmp_path / folder), "--train", "50", "--eval", "10", "--seed", seed]
        word_problems.main(arguments)
    for name in ("train.jsonl", "eval.jsonl"):
        first, second, third = ((tmp_path / folder / name).read_bytes() for folder in ("one", "two", "three"))
        assert first == second
        assert first != third


def test_training_and_evaluation_share_no_question(word_problems, tmp_path):
    word_problems.main(["--folder", str(tmp_path), "--train", "3000", "--eval", "500"])
    questions = [
        [json.loads(line)["question"] for line in (tmp_path / name).read_text(encoding="utf-8").splitlines()]
        for name in ("train.jsonl", "eval.jsonl")
    ]
    assert [len(part) for part in questions] == [3000, 500]
    assert len(set(questions[0]) | set(questions[1])) == 3500

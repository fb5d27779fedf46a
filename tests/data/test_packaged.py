"""The data that come with qpeft: right, what their script writes, and readable by name."""

import ast
import importlib.util
import json
import operator
from fractions import Fraction
from pathlib import Path

import pytest

from qpeft.data import load_examples
from qpeft.data.rows import PACKAGED, packaged_file
from qpeft.errors import DataError

SCRIPT = Path(__file__).parents[2] / "examples/demo/packaged_problems.py"
ROWS = [json.loads(line) for line in packaged_file("word_problems").read_text(encoding="utf-8").splitlines()]
OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def value(node):
    if isinstance(node, ast.Constant):
        return Fraction(node.value)
    return OPERATORS[type(node.op)](value(node.left), value(node.right))


def test_answers_are_those_of_the_equations():
    for row in ROWS:
        assert value(ast.parse(row["equation"], mode="eval").body) == int(row["answer"]) > 0, row


def test_all_numbers_of_an_equation_stand_in_its_question():
    for row in ROWS:
        numbers = {word for word in row["equation"].replace("(", "").replace(")", "").split() if word.isdigit()}
        assert numbers <= set(row["question"].replace(".", "").replace(",", "").replace("?", "").split()), row


def test_the_file_is_what_the_script_writes():
    spec = importlib.util.spec_from_file_location("packaged_problems", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.problems() == ROWS


def test_a_data_set_is_read_by_its_name():
    examples = load_examples("package:word_problems", prompt="{question}", response="{equation} = {answer}")
    assert len({example.messages[0].content for example in examples}) == len(ROWS) == 200


def test_every_data_set_that_is_listed_is_there():
    assert [packaged_file(name).is_file() for name in PACKAGED] == [True] * len(PACKAGED)


def test_a_misspelt_data_set_names_the_nearest():
    with pytest.raises(DataError, match=r"did you mean package:word_problems\?"):
        load_examples("package:word_problem")

"""MATH: what is in the box, as text and as mathematics."""

# ruff: noqa: RUF001  (odd signs are what is tested)
import threading

import pytest

from qpeft.data import Example, Message, load_examples
from qpeft.errors import DataError, TaskError
from qpeft.evaluation import TASKS
from qpeft.evaluation.tasks.competition_maths import boxed, normal_form
from qpeft.evaluation.tasks.word_problems import plain_numbers

MATH = TASKS["math"]


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        (r"so $\boxed{7}$.", "7"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"first \boxed{1}, then \boxed{2}", "2"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\fbox{3}", "3"),
        (r"$\boxed 9$ metres", "9"),
        (r"\boxed{1", None),
        ("nothing", None),
    ],
)
def test_the_last_box_is_read_with_braces_inside(text, inside):
    assert boxed(text) == inside


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"\frac12", r"\dfrac{1}{2}"),
        ("3/4", r"\frac{3}{4}"),
        (r"\frac{3}4", r"\tfrac{3}{4}"),
        (r"\frac3{4}", r"\frac34"),
        (".5", "0.5"),
        (r"1,\!000", "1000"),
        (r"1{,}000", "1000"),
        ("−5", "-5"),
        ("–5", "-5"),
        ("１２", "12"),
        ("3−x", "3-x"),
        ("2½", "2.5"),
        ("12,345", "12345"),
        (r"\$5", "5"),
        (r"90^\circ", "90"),
        (r"50\%", "50"),
        (r"4\text{ cm}", "4"),
        (r"\text{Mary}", "Mary"),
        ("x = 3", "3"),
        (r"\left(1,\, 2\right]", "(1,2]"),
        (r"\sqrt2", r"\sqrt{2}"),
        ("7.", "7"),
    ],
)
def test_spellings_of_one_answer_are_the_same_text(one, other):
    assert normal_form(plain_numbers(one)) == normal_form(other)
    assert MATH.grade(rf"So \boxed{{{one}}}", rf"\boxed{{{other}}}") == {"strict": 1, "math_verify": 1}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1,2", "12"),
        ("(1,200)", "1200"),
        ("-3", "3"),
        ("−3", "3"),
        (r"\frac{1}{2}", r"\frac{2}{1}"),
        ("x=1, y=2", "2"),
        ("2.5", "25"),
    ],
)
def test_other_answers_are_other_texts(one, other):
    assert normal_form(one) != normal_form(other)
    assert MATH.grade(rf"\boxed{{{one}}}", rf"\boxed{{{other}}}") == {"strict": 0, "math_verify": 0}


@pytest.mark.parametrize(
    ("text", "expected", "strict", "same"),
    [
        (r"\boxed{0.5}", r"\boxed{\frac{1}{2}}", 0, 1),
        (r"\boxed{2\sqrt{2}}", r"\boxed{\sqrt{8}}", 0, 1),
        ("The answer is $7$.", r"\boxed{7}", 0, 1),
        (r"\boxed{(x+1)^2}", r"\boxed{x^2+2x+1}", 0, 1),
        (r"\boxed{8}", r"\boxed{7}", 0, 0),
        ("", r"\boxed{7}", 0, 0),
        (r"\boxed{\text{(C)}}", r"\boxed{\text{(C)}}", 1, 1),
    ],
)
def test_math_verify_asks_for_the_value_and_strict_for_the_text_in_a_box(text, expected, strict, same):
    assert MATH.grade(text, expected) == {"strict": strict, "math_verify": same}


def test_files_with_the_columns_of_math_are_read(tmp_path):
    path = tmp_path / "math.jsonl"
    path.write_text(
        '{"problem": "What is $1+1$?", "level": "Level 1", "type": "Algebra", "solution": "It is $\\\\boxed{2}$."}\n'
    )
    (example,) = load_examples(str(path))
    assert (example.question[-1].content, example.answer) == ("What is $1+1$?", r"It is $\boxed{2}$.")
    MATH.require(example)


def test_a_solution_without_a_box_is_refused():
    example = Example((Message("user", "?"), Message("assistant", "2")), {}, "file:3")
    with pytest.raises(DataError, match="file:3: math needs a solution with its answer in"):
        MATH.require(example)


def test_a_parser_that_does_not_work_is_said_before_anything_is_graded(monkeypatch):
    MATH.require_packages()
    monkeypatch.setattr("math_verify.parse", lambda _: [])
    with pytest.raises(TaskError, match="its parser does not work here"):
        MATH.require_packages()


def test_grading_in_another_thread_is_refused_since_signals_would_not_come():
    example, caught = Example((Message("user", "?"), Message("assistant", r"\boxed{2}")), {}, "x"), []

    def require():
        try:
            MATH.require(example)
        except TaskError as error:
            caught.append(str(error))

    thread = threading.Thread(target=require)
    thread.start()
    thread.join()
    assert "main thread" in caught[0]

"""GSM8K's grades, against lm-eval's own filters and by hand."""

# ruff: noqa: RUF001, RUF002  (odd signs are what is tested)
import pytest
from lm_eval.api.metrics import exact_match_hf_evaluate
from lm_eval.filters.extraction import RegexFilter

from qpeft.data import Example, Message
from qpeft.errors import DataError
from qpeft.evaluation import TASKS

GSM8K = TASKS["gsm8k"]
TEXTS = [
    "They watch 6*4 = 24 movies.\n#### 24",
    "#### 24",
    "####24",
    "#### 24.",
    "#### 24.0",
    "#### $24",
    "#### -24",
    "#### 1,024",
    "#### 24\n#### 25",
    "#### about 24, so #### 24",
    "The answer is 24.",
    "24 apples and 7 pears",
    "It costs $24.",
    "It costs $1,024.50 today",
    "so 24...",
    "x = .5",
    "7 - 31 = -24",
    "None at all",
    "",
    "#### ",
    "24 $",
    "- 24 -",
    "\u0662\u0664",
]
EXPECTED = ["They watch <<6*4=24>>24.\n#### 24", "#### 1,024", "x\n#### -24", "#### 24."]


def of_lm_eval(text, expected, pattern, select):
    """What lm-eval's gsm8k makes of one answer, by the patterns of its task file."""
    (((found,)),) = RegexFilter(pattern, group_select=select).apply([[text]], [{}])
    ignored = [",", "\\$", "(?s).*#### ", "\\.$"]
    return float(
        exact_match_hf_evaluate([found], [expected], regexes_to_ignore=ignored, ignore_case=True)["exact_match"]
    )


@pytest.mark.parametrize("expected", EXPECTED)
def test_both_grades_are_those_of_lm_eval(expected):
    for text in TEXTS:
        theirs = {
            "strict": of_lm_eval(text, expected, "#### (\\-?[0-9\\.\\,]+)", 0),
            "flexible": of_lm_eval(text, expected, "(-?[$0-9.,]{2,})|(-?[0-9]+)", -1),
        }
        assert GSM8K.grade(text, expected) == theirs, text


@pytest.mark.parametrize(
    ("text", "strict", "flexible"),
    [
        ("6 * 4 = 24\n#### 24", 1, 1),
        ("6 * 4 = 24", 0, 1),
        ("#### 24, not 25", 1, 0),
        ("#### 25", 0, 0),
        ("#### 24.0", 0, 0),
        ("", 0, 0),
    ],
)
def test_strict_asks_for_the_mark_and_flexible_for_the_last_number(text, strict, flexible):
    assert GSM8K.grade(text, "so\n#### 24") == {"strict": strict, "flexible": flexible}


def test_an_expected_answer_without_the_mark_is_refused():
    example = Example((Message("user", "?"), Message("assistant", "It is 24")), {}, "file:3")
    with pytest.raises(DataError, match="file:3: gsm8k needs an answer that ends on '#### NUMBER'"):
        GSM8K.require(example)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("#### −5", "-5"),
        ("#### –5", "-5"),
        ("#### −$1,024", "-1024"),
        ("#### １２", "12"),
        ("#### 1\u202f024", "1024"),
        ("#### 2½", "2.5"),
        ("3–5 = −2\n#### −2", "-2"),
    ],
)
def test_typographic_numbers_are_read_where_lm_eval_reads_others(text, number):
    """lm-eval takes −5 for 5, which would be right where 5 is."""
    assert GSM8K.grade(text.replace("$", ""), f"x\n#### {number}") == {"strict": 1, "flexible": 1}
    assert GSM8K.grade(text, f"#### {number}")["flexible"] == 1
    assert GSM8K.grade(text, f"#### {number.removeprefix('-')}0") == {"strict": 0, "flexible": 0}
    if number.startswith("-"):
        assert GSM8K.grade(text, f"#### {number[1:]}") == {"strict": 0, "flexible": 0}


def test_a_range_ends_on_its_last_number():
    assert GSM8K.grade("It takes 3–5 days", "#### 5") == {"strict": 0, "flexible": 1}

"""Numbers in answers."""

# ruff: noqa: RUF001  (odd signs are what is tested)
from decimal import Decimal

import pytest

from qpeft.evaluation import final_number, is_right
from qpeft.evaluation.tasks.word_problems import plain_numbers


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("(80 + 31) - 6 = 105", "105"),
        ("They watch 6 x 4 = <<6*4=24>>24 movies.\n#### 24", "24"),
        ("#### $1,234.50 for 3 of them", "1234.50"),
        ("It costs $12.", "12"),
        ("-3", "-3"),
        ("about 0.5", "0.5"),
        (".5", "0.5"),
        ("1,234,567", "1234567"),
        ("4, 5", "5"),
        ("none at all", None),
        ("####", None),
        ("", None),
    ],
)
def test_the_final_number_is_found(text, number):
    assert final_number(text) == (None if number is None else Decimal(number))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        # A minus is one, however it is typed: U+2212, full-width, a dash in front of a number, with money, in TeX.
        ("−5", "-5"),
        ("x = −0.42", "-0.42"),
        ("7 − 31 = −24", "-24"),
        ("－７", "-7"),
        ("It is –5 °C", "-5"),
        ("from 3 to –5", "-5"),
        ("**−5**", "-5"),
        ("(–5)", "-5"),
        ("−$5", "-5"),
        ("-$5", "-5"),
        ("−€1,250", "-1250"),
        (r"-\$5", "-5"),
        ("x = − 5", "-5"),
        ("\u200e-5", "-5"),
        ("−\u20605", "-5"),
        # A dash between two things is none.
        ("3–5", "5"),
        ("3-5 days", "5"),
        ("3−5", "5"),
        ("3 – 5", "5"),
        ("$3-$5", "5"),
        ("50%-60%", "60"),
        ("COVID-19", "19"),
        ("3 apples—5 pears", "5"),
        ("- 5 apples", "5"),
        ("\u00ad5", "5"),
        # Thousands: thin and unbreakable spaces, plain ones, apostrophes, TeX, lakhs.
        ("1\u00a0234", "1234"),
        ("1\u202f234\u202f567", "1234567"),
        ("12\u2009345", "12345"),
        ("1 234", "1234"),
        ("It is 12 345 678.", "12345678"),
        ("1'234", "1234"),
        ("1’234.5", "1234.5"),
        (r"\boxed{9{,}500}", "9500"),
        (r"\$1\,234", "1234"),
        (r"1,\!000", "1000"),
        ("1,00,000", "100000"),
        ("100 200 300", "300"),
        ("In 2020 500 people", "500"),
        ("2020\u00a0500", "500"),
        # Digits of other scripts.
        ("１２３４", "1234"),
        ("１，２３４．５", "1234.5"),
        ("答案是３，５", "5"),
        ("٢٤", "24"),
        ("−٥", "-5"),
        ("١٬٢٣٤٫٥", "1234.5"),
        ("𝟓", "5"),
        # Fractions, but no dates.
        ("½", "0.5"),
        ("2½", "2.5"),
        ("−2 ½", "-2.5"),
        ("¾ cup", "0.75"),
        ("1⁄2", "0.5"),
        ("1/2", "0.5"),
        ("2 1/2", "2.5"),
        ("-3/4", "-0.75"),
        (r"\frac{3}{4}", "0.75"),
        (r"-\frac{3}{4}", "-0.75"),
        (r"2\frac{1}{2}", "2.5"),
        ("on 12/25/2023", "2023"),
        ("5/0", "0"),
        ("8/2 = 4", "4"),
        # What stands beside a number.
        ("5 cm²", "5"),
        ("72 clips, altogether", "72"),
    ],
)
def test_numbers_are_read_as_people_type_them(text, number):
    """Complaints: a sign is dropped with its dash (PrairieLearn 135), 9{,}500 reads as 500 (OpenCompass 2647)."""
    assert final_number(text) == Decimal(number)
    assert final_number(f"First 77, then #### {text}, not 78") == final_number(f"#### {text}")


def test_a_fraction_without_an_end_equals_itself_alone():
    assert is_right("⅓ of it", "#### 1/3")
    assert is_right(r"\frac{2}{6}", "⅓")
    assert not is_right("0.33", "1/3")


def test_a_minus_is_no_matter_of_typing():
    for dash in "-−–－":
        assert is_right(f"So x = {dash}5.", "-5")
        assert not is_right(f"So x = {dash}5.", "5")


@pytest.mark.parametrize("text", ["plain -5, 3-5 and 1/2 {,}", "a dash – here", "x²–y²", "it’s 5", "５５", "٢٤"])
def test_plain_text_keeps_its_words(text):
    assert plain_numbers(text) == text.replace("５５", "55")


def test_equal_numbers_match_however_they_are_written():
    assert is_right("So it is 12.0", "12")
    assert is_right("$1,000", "#### 1000")


def test_a_wrong_or_missing_number_is_wrong():
    assert not is_right("13", "12")
    assert not is_right("a dozen", "12")
    assert not is_right("a dozen", "no number either")

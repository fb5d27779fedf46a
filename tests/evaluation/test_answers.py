"""Numbers in answers."""

from decimal import Decimal

import pytest

from qpeft.evaluation import final_number, is_right


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


def test_equal_numbers_match_however_they_are_written():
    assert is_right("So it is 12.0", "12")
    assert is_right("$1,000", "#### 1000")


def test_a_wrong_or_missing_number_is_wrong():
    assert not is_right("13", "12")
    assert not is_right("a dozen", "12")
    assert not is_right("a dozen", "no number either")

"""What `qpeft inspect --data` counts."""

import pytest

from qpeft.data.example import Example, Message
from qpeft.data.inspection import Copies, find_copies, length_tables


def example(question, source="x"):
    return Example((Message("user", question), Message("assistant", "Yes.")), {}, source)


def test_copies_are_counted_exactly_and_but_for_case_and_punctuation():
    training = [example("Is it?"), example("Is it?", "x:2"), example("is IT", "x:3"), example("It is?")]
    held_out = [example("Is it?", "y:1"), example("IT, is!", "y:2"), example("New?")]
    assert find_copies(training, held_out) == (Copies(1, 1, "x:2"), Copies(1, 1, "y:1"))
    assert str(Copies(1, 1, "x:2")) == "1 exact, 1 but for case, punctuation and spaces, first at x:2"
    assert find_copies(training[::3], [])[0] == Copies(0, 0, None)


def cells(table):
    return [list(column.cells) for column in table.columns]


def test_percentiles_are_lengths_that_so_many_examples_do_not_exceed():
    percentiles, _ = length_tables(range(1, 201), 512)
    assert cells(percentiles) == [[str(value)] for value in (10, 50, 100, 150, 180, 190, 198, 200)]
    assert cells(length_tables([7], 512)[0]) == [["7"]] * 8


@pytest.mark.parametrize("lengths", [[1], [3, 24, 24, 17], [12] * 5, list(range(1, 1000))])
def test_the_histogram_counts_every_example_once(lengths):
    ranges, counts, bars = cells(length_tables(lengths, 18)[1])
    assert sum(int(count.replace(",", "")) for count in counts) == len(lengths)
    for span, count in zip(ranges, counts, strict=True):
        first, last = map(int, span.replace(",", "").split("-"))
        assert int(count) == sum(first <= length <= last for length in lengths)
    assert max(bar.count("#") for bar in bars) == 40
    assert counts[0] != "0", "no rows below the shortest example"
    assert counts[-1] != "0", "no rows above the longest example"

"""Whole examples side by side in rows."""

from hypothesis import given, settings
from hypothesis import strategies as st

from qpeft.data.encode import Encoded
from qpeft.data.packing import PackedExamples, pack


def encoded(*tokens):
    return Encoded(list(tokens), list(tokens), 0, (), f"x:{tokens[0]}")


@settings(max_examples=100)
@given(sizes=st.lists(st.integers(1, 20), max_size=40))
def test_every_example_lies_whole_in_one_row(sizes):
    rows = pack(sizes, 20)
    assert sorted(place for row in rows for place in row) == list(range(len(sizes)))
    assert all(0 < sum(sizes[place] for place in row) <= 20 for row in rows)
    # Two rows that would fit into one are never left: the second would have gone into the first.
    assert sum(sum(sizes[place] for place in row) <= 10 for row in rows) <= 1


def test_each_example_goes_where_it_leaves_the_least_room():
    assert pack([6, 5, 4, 3, 2], 10) == [[0, 2], [1, 3, 4]]


def test_a_row_holds_tokens_in_turn_and_trains_on_no_first_token():
    rows = PackedExamples([encoded(7), encoded(1, 2, 3), encoded(4, 5)], 5)
    (row, last) = rows[:]
    assert (row.input_ids, row.labels, row.lengths) == ([1, 2, 3, 4, 5], [-100, 2, 3, -100, 5], (3, 2))
    assert (last.input_ids, last.lengths) == ([7], (1,))
    assert rows.filled == 6 / 10

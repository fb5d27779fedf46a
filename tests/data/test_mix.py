"""Several sources in one stream, and dialogues kept out of it."""

from collections import Counter

import pytest

from qpeft.data import hold_out, hold_out_line, mix, split_digest
from qpeft.data.example import Example, Message
from qpeft.errors import DataError


def examples(name, count):
    return [Example((Message("user", f"{name} {i}"), Message("assistant", "x")), {}, name) for i in range(count)]


A, B = examples("a", 300), examples("b", 100)


def test_a_mix_holds_each_example_as_often_as_its_weight_says():
    counts = Counter(one.question[0].content for one in mix([(A, 1), (B, 2.5)], seed=0))
    assert {counts[f"a {i}"] for i in range(300)} == {1}
    of_b = Counter(counts[f"b {i}"] for i in range(100))
    assert set(of_b) == {2, 3}
    assert 30 < of_b[3] < 70  # a half, within 4 standard deviations


def test_the_order_of_a_mix_depends_on_the_seed_alone():
    def order(seed):
        return [one.question[0].content for one in mix([(A, 1), (B, 1)], seed=seed)]

    assert order(3) == order(3) != order(4)
    assert [name for name in order(3) if name.startswith("b")] == [f"b {i}" for i in range(100)]


@pytest.mark.parametrize("weight", [1, 0.5, 3])
def test_a_small_source_is_spread_over_the_whole_stream(weight):
    names = [one.source for one in mix([(A, 1), (B, weight)], seed=0)]
    share = names.count("b") / len(names)
    for start in range(0, len(names) - 3, len(names) // 4):
        part = names[start : start + len(names) // 4]
        error = (share * (1 - share) / len(part)) ** 0.5
        assert abs(part.count("b") / len(part) - share) < 4 * error


def test_one_source_keeps_its_order():
    assert list(mix([(A, 1)], seed=5)) == A


def test_rows_added_later_move_no_others_across_a_share():
    before, after = hold_out(A, 0.1), hold_out([*B, *A], 0.1)
    assert before[1] == [one for one in after[1] if one.source == "a"]
    assert 12 < len(before[1]) < 48  # a tenth of 300, within about 4 standard deviations


def test_a_count_holds_so_many_out_and_all_copies():
    training, held_out = hold_out([*A, *A], 30)
    assert len(held_out) in (30, 31)
    assert not {one.digest for one in training} & {one.digest for one in held_out}
    assert hold_out_line(A, 20) in {one.digest for one in A}


@pytest.mark.parametrize(
    ("amount", "message"),
    [(300, "with any left to train on"), (400, "with any left"), (1e-9, "1e-09 is no number of examples")],
)
def test_amounts_that_leave_nothing_are_refused(amount, message):
    with pytest.raises(DataError, match=message):
        hold_out(A, amount)


def test_the_digest_of_a_split_tells_order_text_and_what_is_trained_on():
    other = Example((*A[0].messages[:1], Message("assistant", "x", trained=False)), {}, "")
    digests = {split_digest(part) for part in (A[:2], A[1::-1], A[:3], [other, A[1]])}
    assert len(digests) == 4
    assert split_digest(A[:2]) == split_digest(examples("a", 2))

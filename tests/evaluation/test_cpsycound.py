"""Counselling turns: metrics against sums by hand, and the history that models are given."""

import math
import sys
from collections import Counter

import pytest

from qpeft.data import Example, Message, encode_all
from qpeft.errors import DataError, TaskError
from qpeft.evaluation import TASKS, held_out_loss, score, scores
from qpeft.evaluation.tasks.cpsycound import characters
from qpeft.models import load_model, load_tokenizer

TASK = TASKS["cpsycound"]
COMMA = "\N{FULLWIDTH COMMA}"
PAIRS = [
    ("我觉得你今天很难过", "我觉得你今天有点难过"),
    ("你好", "你好"),
    (f"慢慢来{COMMA}不要着急。", f"不要着急{COMMA}我们慢慢来。"),
    ("说说看", "你愿意多说一点吗"),
]
TURNS = ("我睡不着", "从什么时候开始的", "上个月", "那时发生了什么", "我换了工作", "听起来压力很大")


def dialogue(turns=TURNS, source="x:1"):
    roles = ("user", "assistant")
    return Example(tuple(Message(roles[i % 2], text) for i, text in enumerate(turns)), {}, source)


def grams(tokens, n):
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


def bleu(pairs, orders):
    """BLEU by its formula over character lists, punctuation included, without smoothing."""
    logs = []
    for n in range(1, orders + 1):
        matched = sum((grams(list(text), n) & grams(list(right), n)).total() for text, right in pairs)
        logs.append(math.log(matched / sum(grams(list(text), n).total() for text, _ in pairs)))
    mine, theirs = (sum(len(pair[side]) for pair in pairs) for side in (0, 1))
    return min(1, math.exp(1 - theirs / mine)) * math.exp(sum(logs) / orders)


def f1(shared, mine, theirs):
    return 0 if shared == 0 else 2 * shared / (mine + theirs)


def longest_common(one, other):
    """Length of the longest common subsequence, by recursion."""
    if not one or not other:
        return 0
    if one[0] == other[0]:
        return 1 + longest_common(one[1:], other[1:])
    return max(longest_common(one[1:], other), longest_common(one, other[1:]))


def bare(text):
    return [character for character in text if character not in f"{COMMA}。"]


def test_bleu_of_all_turns_is_the_formula_over_chinese_characters():
    found = TASK.overall(*zip(*PAIRS, strict=True))
    assert found["bleu_4"] == pytest.approx(bleu(PAIRS, 4), rel=1e-9)


@pytest.mark.parametrize("pair", PAIRS[:2])
def test_bleu_of_a_short_turn_counts_the_orders_that_it_has(pair):
    assert TASK.grade(*pair)["sentence_bleu_4"] == pytest.approx(bleu([pair], min(4, len(pair[0]))), rel=1e-9)


@pytest.mark.parametrize(("text", "right"), PAIRS)
def test_rouge_and_f1_are_overlaps_of_characters(text, right):
    mine, theirs = bare(text), bare(right)
    expected = {
        f"rouge_{n}": f1((grams(mine, n) & grams(theirs, n)).total(), grams(mine, n).total(), grams(theirs, n).total())
        for n in (1, 2)
    }
    expected["rouge_l"] = f1(longest_common(mine, theirs), len(mine), len(theirs))
    expected["character_f1"] = f1((Counter(mine) & Counter(theirs)).total(), len(mine), len(theirs))
    found = TASK.grade(text, right)
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_equal_turns_are_worth_1_and_turns_without_a_common_character_0():
    assert TASK.grade("我们慢慢来吧", "我们慢慢来吧") == pytest.approx(dict.fromkeys(TASK.metrics, 1.0))
    unlike = TASK.grade("我们慢慢来", "压力很大")
    assert [unlike[name] for name in TASK.metrics if name != "sentence_bleu_4"] == [0, 0, 0, 0]
    assert set(TASK.grade("", "压力很大").values()) == {0}


def test_letters_of_other_scripts_stay_words():
    assert characters(f"我有PTSD{COMMA}3个月。 It's") == ["我", "有", "ptsd", "3", "个", "月", "it", "s"]


def test_rouge_over_words_counts_what_jieba_finds():
    TASKS["cpsycound_words"].require_packages()
    text, right = "我觉得压力很大", "我觉得工作压力大"
    mine, theirs = map(TASKS["cpsycound_words"].tokenize, (text, right))
    assert len(mine) < len(text)
    found = TASKS["cpsycound_words"].grade(text, right)
    shared = (Counter(mine) & Counter(theirs)).total()
    assert found["rouge_1"] == pytest.approx(f1(shared, len(mine), len(theirs)))
    assert found["character_f1"] == TASK.grade(text, right)["character_f1"]


@pytest.fixture(scope="module")
def model(tiny_model):
    return load_model(str(tiny_model))


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return load_tokenizer(str(tiny_model))


def test_every_turn_is_answered_from_the_true_turns_before_it(model, tokenizer, monkeypatch):
    asked = []

    def generate(_model, _tokenizer, questions, **_):
        asked.extend(questions)
        return ["好"] * len(questions)

    monkeypatch.setattr(scores, "generate", generate)
    examples = [dialogue(), dialogue(TURNS[:4], "x:2")]
    encoded = encode_all(tokenizer, examples)
    result = score(model, tokenizer, examples, encoded, task=TASK)
    lengths = (1, 3, 5, 1, 3)
    assert [tuple(one.content for one in history) for history in asked] == [TURNS[:length] for length in lengths]
    assert [one.expected for one in result.answers] == [TURNS[length] for length in lengths]
    assert [one.example for one in result.answers] == [0, 0, 0, 1, 1]
    assert {one.right for one in result.answers} == {None}
    assert result.exact_match is None
    assert result.loss == held_out_loss(model, encoded).loss
    grades = [TASK.grade("好", TURNS[length])["rouge_1"] for length in lengths]
    assert result.metrics["rouge_1"] == pytest.approx(sum(grades) / 5)
    assert result.to_dict()["items"]["grades"]["rouge_1"] == grades


def test_the_first_items_are_dialogues_and_not_turns(model, tokenizer):
    examples = [dialogue(), dialogue(TURNS[:4])]
    result = score(model, tokenizer, examples, encode_all(tokenizer, examples), task=TASK, items=1, max_new_tokens=2)
    assert [one.expected for one in result.answers] == [TURNS[1], TURNS[3], TURNS[5]]


def test_a_history_that_is_longer_than_the_model_reads_is_refused(model, tokenizer):
    examples = [dialogue(("我" * 900, "好"))]
    with pytest.raises(DataError, match=r"x:1: the question has 2,7.. tokens, and the model reads 2,048 at once"):
        score(model, tokenizer, examples, encode_all(tokenizer, [dialogue()]), task=TASK)


def test_a_missing_package_names_the_extra_before_anything_is_generated(model, tokenizer, monkeypatch):
    monkeypatch.setitem(sys.modules, "rouge_score", None)
    with pytest.raises(TaskError, match=r'rouge-score cannot be imported: .* pip install "qpeft\[eval\]"'):
        score(model, tokenizer, [dialogue()], encode_all(tokenizer, [dialogue()]), task=TASK)

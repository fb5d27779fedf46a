"""Held-out loss, against a loop over single tokens."""

import pytest
import torch

from qpeft.data import Example, Message, encode_all, load_examples
from qpeft.errors import DataError
from qpeft.evaluation import find_task, generate, held_out_loss, score
from qpeft.evaluation import loss as module
from qpeft.models import load_model, load_tokenizer


@pytest.fixture(scope="module")
def model(tiny_model):
    return load_model(str(tiny_model))


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return load_tokenizer(str(tiny_model))


@pytest.fixture(scope="module")
def examples(sums):
    return load_examples(str(sums))


def test_held_out_loss_is_the_mean_over_marked_tokens(model, tokenizer, examples, monkeypatch):
    monkeypatch.setattr(module, "TOKENS_PER_BATCH", 64)  # several batches of unequal size
    encoded = encode_all(tokenizer, examples)
    total, count = 0.0, 0
    for one in encoded:
        with torch.no_grad():
            predictions = model(torch.tensor([one.input_ids])).logits[0].log_softmax(-1)
        for place, label in enumerate(one.labels):
            if label != -100:
                total -= predictions[place - 1, label].item()
                count += 1
    result = held_out_loss(model, encoded)
    assert result.tokens == count
    assert result.loss == pytest.approx(total / count, rel=1e-5)


def test_the_losses_of_single_examples_are_those_of_the_examples_alone(model, tokenizer, examples, monkeypatch):
    encoded = encode_all(tokenizer, [*examples[12:], *examples[:3]])
    alone = [held_out_loss(model, [one]) for one in encoded]
    monkeypatch.setattr(module, "TOKENS_PER_BATCH", 64)
    result = held_out_loss(model, encoded)
    assert result.item_tokens == tuple(one.tokens for one in alone)
    assert result.item_sums == pytest.approx([one.loss * one.tokens for one in alone], rel=1e-5)
    assert sum(result.item_sums) / sum(result.item_tokens) == pytest.approx(result.loss)


def test_measuring_leaves_the_mode_of_the_model_alone(model, tokenizer, examples):
    encoded = encode_all(tokenizer, examples[:2])
    for mode in (True, False):
        model.train(mode)
        model.lm_head.train(not mode)  # as where a part is frozen with its dropout off
        held_out_loss(model, encoded)
        assert (model.training, model.model.training, model.lm_head.training) == (mode, mode, not mode)


def test_answers_in_a_batch_equal_answers_alone(model, tokenizer, examples):
    questions = [example.question for example in examples[:5]]
    together = generate(model, tokenizer, questions, max_new_tokens=6)
    alone = [generate(model, tokenizer, [question], max_new_tokens=6)[0] for question in questions]
    assert together == alone


def test_answers_that_did_not_end_by_themselves_are_told(model, tokenizer, examples):
    questions, cut = [example.question for example in examples[:5]], set()
    texts = generate(model, tokenizer, questions, max_new_tokens=6, on_cut=cut.add)
    assert cut == set(range(5))
    (first,) = tokenizer([texts[2]], add_special_tokens=False)["input_ids"]
    ends = model.generation_config.eos_token_id
    model.generation_config.eos_token_id = [ends, first[0]]
    try:
        cut.clear()
        ended = generate(model, tokenizer, questions, max_new_tokens=6, on_cut=cut.add)
    finally:
        model.generation_config.eos_token_id = ends
    assert 2 not in cut
    assert cut == {number for number, text in enumerate(texts) if ended[number] == text}


def test_scores_count_right_answers(model, tokenizer, examples, monkeypatch):
    from qpeft.evaluation import scores

    texts = [example.answer if place % 2 else "no idea" for place, example in enumerate(examples[:6])]
    monkeypatch.setattr(scores, "generate", lambda *_, **__: texts)
    result = score(
        model, tokenizer, examples, encode_all(tokenizer, examples), task=find_task("word_problems"), items=6
    )
    assert result.exact_match == 0.5
    assert len(result.answers) == 6


def test_exact_match_of_text_without_a_question_is_an_error(model, tokenizer):
    (text,) = examples = [Example((Message("assistant", "It is 5"),), {}, "x:1", is_plain=True)]
    with pytest.raises(
        DataError, match="x:1: word_problems asks for answers to questions, and this example has no question"
    ):
        score(model, tokenizer, examples, encode_all(tokenizer, [text]), task=find_task("word_problems"))

"""Dialogues that fit what a model reads at once."""

import pytest
from transformers import AutoTokenizer

from qpeft.data import Message
from qpeft.errors import DataError
from qpeft.evaluation.generation import fitting, prompts

SYSTEM = Message("system", "Be terse.")
TURNS = [Message("user" if i % 2 == 0 else "assistant", f"turn {i}") for i in range(7)]


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return AutoTokenizer.from_pretrained(tiny_model)


def tokens_of(tokenizer, messages):
    text = "".join(f"<|im_start|>{one.role}\n{one.content}<|im_end|>\n" for one in messages) + "<|im_start|>assistant\n"
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("first", [[], [SYSTEM]], ids=["bare", "system"])
@pytest.mark.parametrize("dropped", [0, 2, 4, 6])
def test_as_many_of_the_latest_turns_stay_as_there_is_room_for(tokenizer, first, dropped):
    kept = [*first, *TURNS[dropped:]]
    room = tokens_of(tokenizer, kept)
    assert fitting(tokenizer, [*first, *TURNS], room=room) == (kept, dropped)
    if dropped < 6:
        assert fitting(tokenizer, [*first, *TURNS], room=room - 1)[1] == dropped + 2


def test_without_a_limit_all_stay(tokenizer):
    assert fitting(tokenizer, TURNS * 50, room=None) == (TURNS * 50, 0)


def test_a_last_question_that_does_not_fit_is_refused(tokenizer):
    room = tokens_of(tokenizer, [SYSTEM, TURNS[-1]]) - 1
    with pytest.raises(DataError, match=f"has {room + 1} tokens with all that stands around it, and {room} fit"):
        fitting(tokenizer, [SYSTEM, *TURNS], room=room)


@pytest.mark.parametrize("template", ["{{ 1 / 0 }}", "{{ messages[9].content }}", "{% if %}"])
def test_a_template_that_breaks_is_named(tokenizer, monkeypatch, template):
    monkeypatch.setattr(tokenizer, "chat_template", template)
    with pytest.raises(DataError, match="chat template refuses the dialogue"):
        prompts(tokenizer, [TURNS[:1]])

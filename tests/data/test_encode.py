"""Which tokens are trained on: golden masks per chat template."""

import copy
from itertools import groupby

import pytest

from qpeft.data import (
    Example,
    Message,
    choose_answers,
    encode,
    encode_all,
    render_sample,
    summarize,
    to_dataset,
)
from qpeft.data.turns import REWRITTEN, SHORTENED, UNENDED, UNPROMPTED
from qpeft.errors import DataError

WRITTEN_LAST = (
    "{% for m in messages %}[{{ m.role }}]\n{{ m.content }}{% endfor %}{% if not add_generation_prompt %}"
    "[THE END]{% else %}[assistant]\n{% endif %}"
)
"""Ends dialogues, but not turns, by ordinary text."""
DOTTED = "{% for m in messages %}{{ m.content }}.{% endfor %}"


def runs(tokenizer, encoded):
    """The text as (is it trained on, piece) pairs, read off the labels alone."""
    pairs = zip(encoded.input_ids, encoded.labels, strict=True)
    return [
        (trained, tokenizer.decode([token for token, _ in run]))
        for trained, run in groupby(pairs, key=lambda pair: pair[1] != -100)
    ]


def trained(tokenizer, encoded):
    return [piece for is_trained, piece in runs(tokenizer, encoded) if is_trained]


@pytest.mark.parametrize(
    ("template", "texts", "expected"),
    [
        ("chatml", ["Hi", "One", "More?", "Two"], ["One<|im_end|>", "Two<|im_end|>"]),
        ("smollm2", ["Hi", "One", "More?", "Two"], ["One<|im_end|>", "Two<|im_end|>"]),
        ("llama3", [" Hi ", " One ", "More?", "Two\n"], ["One<|eot_id|>", "Two<|eot_id|>"]),
        ("qwen2.5", ["Hi", "One", "More?", "Two"], ["One<|im_end|>", "Two<|im_end|>"]),
        ("qwen3", ["Hi", "One", "More?", "Two"], ["One<|im_end|>", "<think>\n\n</think>\n\nTwo<|im_end|>"]),
        (
            "deepseek-r1",
            ["Hi", "<think>hm</think>One", "More?", "Two"],
            ["One<|end|>", "Two<|end|>"],
        ),
        ("llama2", ["Hi", "One", "More?", "Two"], [" One </s>", " Two </s>"]),
        ("generation-marks", ["Hi", "One", "More?", "Two"], ["One<|im_end|>", "Two<|im_end|>"]),
        ("no-end-of-turn", ["Hi", "there", "More?", "you"], [" there", " you"]),
        ("written-end", ["Hi", "One", "More?", "Two"], ["One<|stop|>", "Two<|stop|>"]),
        (WRITTEN_LAST, ["Hi", "One", "More?", "Two"], ["One", "Two"]),
        ("chatml", ["你好", "很好 😀", "再见", "再见。"], ["很好 😀<|im_end|>", "再见。<|im_end|>"]),
        ("chatml", ["Same", "Same", "Same", "Same"], ["Same<|im_end|>", "Same<|im_end|>"]),
        (
            "chatml",
            ["assistant\nOne", "One\n\n<|im_end|>?", "b", "user\n"],
            ["One\n\n<|im_end|>?<|im_end|>", "user\n<|im_end|>"],
        ),
    ],
)
def test_every_answer_is_trained_on_and_nothing_else(with_template, dialogue, template, texts, expected):
    tokenizer = with_template(template)
    encoded = encode(tokenizer, dialogue(*texts))
    assert trained(tokenizer, encoded) == expected
    assert all(label in (-100, token) for token, label in zip(encoded.input_ids, encoded.labels, strict=True))


IM_USER, IM_ASSISTANT = "<|im_start|>user\n{}<|im_end|>\n", "<|im_start|>assistant\n"
LLAMA_USER = "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
LLAMA_ASSISTANT = "<|start_header_id|>assistant<|end_header_id|>\n\n"


IM_SYSTEM = "<|im_start|>system\n{}<|im_end|>\n"
LLAMA_SYSTEM = "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n{}<|eot_id|>"


@pytest.mark.parametrize("is_told", [False, True], ids=["without a system message", "with one"])
@pytest.mark.parametrize(
    ("template", "opening", "system", "user", "assistant", "end", "after"),
    [
        ("chatml", "", IM_SYSTEM, IM_USER, IM_ASSISTANT, "<|im_end|>", "\n"),
        ("smollm2", IM_SYSTEM.format("You are SmolLM."), IM_SYSTEM, IM_USER, IM_ASSISTANT, "<|im_end|>", "\n"),
        ("qwen2.5", IM_SYSTEM.format("You are Qwen."), IM_SYSTEM, IM_USER, IM_ASSISTANT, "<|im_end|>", "\n"),
        ("llama3", "<|begin_of_text|>", LLAMA_SYSTEM, LLAMA_USER, LLAMA_ASSISTANT, "<|eot_id|>", ""),
        ("deepseek-r1", "<|begin|>", "<|begin|>{}", "<|User|>{}", "<|Assistant|>", "<|end|>", ""),
    ],
)
def test_golden_text_and_mask_of_a_dialogue(
    with_template, dialogue, is_told, template, opening, system, user, assistant, end, after
):
    tokenizer = with_template(template)
    one, two = "<think>hm</think>One", "<think>so</think>Two"
    encoded = encode(tokenizer, dialogue("Hi", one, "More?", two, system="Be brief." if is_told else None))
    if template == "deepseek-r1":
        one, two = "One", "Two"
    expected = [
        (False, (system.format("Be brief.") if is_told else opening) + user.format("Hi") + assistant),
        (True, one + end),
        (False, after + user.format("More?") + assistant),
        (True, two + end),
    ]
    assert runs(tokenizer, encoded) == expected + ([(False, after)] if after else [])


def test_an_answer_that_loses_its_thinking_once_others_follow_is_not_trained_on(with_template, dialogue):
    tokenizer = with_template("thinks-last")
    encoded = encode(tokenizer, dialogue("Hi", "<think>hm</think>One", "More?", "<think>so</think>Two"))
    assert trained(tokenizer, encoded) == ["<think>so</think>Two<|im_end|>"]
    assert encoded.notes == (SHORTENED,)
    without = encode(tokenizer, dialogue("Hi", "One", "More?", "Two"))
    assert trained(tokenizer, without) == ["One<|im_end|>", "Two<|im_end|>"]
    assert without.notes == ()


def test_each_answer_in_an_example_of_its_own_keeps_its_thinking(with_template, dialogue):
    tokenizer = with_template("thinks-last")
    example = dialogue("Hi", "<think>hm</think>One", "More?", "<think>so</think>Two")
    encoded = encode_all(tokenizer, list(choose_answers(example, "each")))
    assert [trained(tokenizer, one) for one in encoded] == [
        ["<think>hm</think>One<|im_end|>"],
        ["<think>so</think>Two<|im_end|>"],
    ]
    assert {one.notes for one in encoded} == {()}


def test_the_last_answer_alone_is_trained_on_if_asked_for(with_template, dialogue):
    tokenizer = with_template("chatml")
    (last,) = choose_answers(dialogue("Hi", "One", "More?", "Two"), "last")
    assert trained(tokenizer, encode(tokenizer, last)) == ["Two<|im_end|>"]
    whole = encode(tokenizer, dialogue("Hi", "One", "More?", "Two"))
    assert encode(tokenizer, last).input_ids == whole.input_ids


def test_plain_text_is_trained_on_whole_with_the_end_of_text(with_template):
    tokenizer = with_template(None)
    example = Example((Message("assistant", "Once upon"),), {}, "x:1", is_plain=True)
    encoded = encode(tokenizer, example)
    assert encoded.notes == ()
    (_, first), (is_trained, rest) = runs(tokenizer, encoded)  # nothing predicts the first token
    assert (encoded.labels.count(-100), is_trained, first + rest) == (1, True, "Once upon<|im_end|>")


def test_plain_text_begins_with_the_token_that_the_tokenizer_puts_there(tokenizer, monkeypatch):
    from tokenizers import processors

    example = Example((Message("assistant", "Once upon"),), {}, "x:1", is_plain=True)
    monkeypatch.setattr(tokenizer, "_special_tokens_map", {**tokenizer._special_tokens_map, "bos_token": "</s>"})
    assert tokenizer.decode(encode(tokenizer, example).input_ids) == "Once upon<|im_end|>"
    begun = copy.deepcopy(tokenizer)
    begun.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="</s> $A", special_tokens=[("</s>", tokenizer.convert_tokens_to_ids("</s>"))]
    )
    assert begun.decode(encode(begun, example).input_ids) == "</s>Once upon<|im_end|>"


@pytest.mark.slow
def test_golden_mask_of_the_real_smollm2(dialogue):
    from qpeft.models import PACKAGE_MODEL, load_tokenizer

    tokenizer = load_tokenizer(PACKAGE_MODEL)
    encoded = encode(tokenizer, dialogue("What is 5 * 9?", "5 * 9 = 45", "And 2 + 2?", "4"))
    marked = [token for token, label in zip(encoded.input_ids, encoded.labels, strict=True) if label != -100]
    first = ["5", "Ġ*", "Ġ", "9", "Ġ=", "Ġ", "4", "5", "<|im_end|>"]
    assert tokenizer.convert_ids_to_tokens(marked) == [*first, "4", "<|im_end|>"]
    assert tokenizer.decode(encoded.input_ids).startswith(
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM"
    )


@pytest.mark.parametrize("template", ["chatml", "smollm2", "llama3", "qwen2.5"])
def test_tokens_before_an_answer_are_those_of_the_generation_prompt(with_template, dialogue, template):
    tokenizer = with_template(template)
    encoded = encode(tokenizer, dialogue("Hi there", "One", system="Be brief."))
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi there"}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    first = next(i for i, label in enumerate(encoded.labels) if label != -100)
    assert encoded.input_ids[:first] == prompt


def test_a_dialogue_may_begin_with_the_assistant(with_template):
    tokenizer = with_template("chatml")
    messages = (Message("assistant", "Welcome"), Message("user", "Hi"), Message("assistant", "One"))
    assert trained(tokenizer, encode(tokenizer, Example(messages, {}, "x:1"))) == ["Welcome<|im_end|>", "One<|im_end|>"]


def test_notes_say_what_the_template_does(with_template, dialogue):
    def notes(template, *texts):
        return encode(with_template(template), dialogue(*texts)).notes

    assert notes("chatml", "Hi", "One") == ()
    assert notes("qwen3", "Hi", "One") == ()
    assert notes("deepseek-r1", "Hi", "One") == (UNPROMPTED,)
    assert notes("deepseek-r1", "Hi", "<think>hm</think>One") == (REWRITTEN, UNPROMPTED)
    assert notes("no-end-of-turn", "Hi", "One") == (UNENDED,)
    assert notes("written-end", "Hi", "One", "More?", "Two") == ()


def test_many_examples_are_encoded_as_each_one_alone(with_template, dialogue):
    tokenizer = with_template("chatml")
    examples = [dialogue("How are you?", f"I am {i}", "And?", "Fine" * (i % 7 + 1)) for i in range(1100)]
    together = encode_all(tokenizer, examples, max_length=64)
    assert together[::97] == [encode(tokenizer, example, max_length=64) for example in examples[::97]]


def test_partly_cut_answers_are_kept_and_counted(with_template, dialogue):
    tokenizer = with_template("chatml")
    whole = encode(tokenizer, dialogue("Hi", "One two three four"))
    first = next(i for i, label in enumerate(whole.labels) if label != -100)
    short = encode(tokenizer, dialogue("Hi", "One two three four"), max_length=first + 2)
    assert short.input_ids == whole.input_ids[: first + 2]
    assert short.labels[first:] == whole.input_ids[first : first + 2]
    assert short.cut == len(whole.input_ids) - first - 2
    summary = summarize([whole, short])
    assert (summary.examples, summary.truncated, summary.longest) == (2, 1, len(whole.input_ids))
    assert summary.tokens == len(whole.input_ids) + len(short.input_ids)
    assert summary.trained_tokens == sum(label != -100 for one in (whole, short) for label in one.labels)


def test_answer_wholly_cut_off_names_the_example_and_the_length_needed(with_template, dialogue):
    tokenizer = with_template("chatml")
    first = next(i for i, label in enumerate(encode(tokenizer, dialogue("Hi", "One")).labels) if label != -100)
    with pytest.raises(
        DataError,
        match=rf"data.jsonl:7: answer wholly cut off: starts at token {first}, max_length is {first} "
        rf"\(2 of 3 examples\).* data.max_length to {first + 1} or more, .* data.drop_longer: true",
    ):
        encode_all(tokenizer, [dialogue("Hi", "One"), dialogue("Hi", "One"), dialogue("", "A")], max_length=first)
    encode(tokenizer, dialogue("Hi", "One"), max_length=first + 1)


def test_tokenizer_without_a_chat_template_says_what_to_do(with_template, dialogue):
    with pytest.raises(DataError, match=r"no chat template: set model\.chat_template"):
        encode(with_template(None), dialogue("Hi", "One"))


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            "{{ raise_exception('Roles must alternate') }}",
            r"data.jsonl:7: .* refuses the dialogue: Roles must alternate",
        ),
        ("{{ messages ", r"data.jsonl:7: .* refuses the dialogue"),
        ("{{ messages[0].content + 1 }}", r"data.jsonl:7: .* refuses the dialogue"),
        ("{{ 1 / 0 }}", r"data.jsonl:7: .* refuses the dialogue: division by zero"),
        ("{% for m in messages %}{{ m.role }}<|im_end|>{% endfor %}", "the answer of turn 2 as one piece"),
        ("{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}", "the answer of turn 2 as one piece"),
        ("{% for m in messages %}{{ m.content }}{{ m.content | length }}{% endfor %}", "turn 2 as one piece"),
        (
            "{{ messages[-1].content | length }}{% for m in messages %}{{ m.content }}{% endfor %}",
            "changes what stands before",
        ),
    ],
)
def test_templates_that_cannot_be_masked_are_errors(with_template, dialogue, template, message):
    with pytest.raises(DataError, match=message):
        encode(with_template(template), dialogue("Hi", "One two"))


def test_training_on_nothing_is_an_error(with_template, dialogue, tokenizer):
    with pytest.raises(DataError, match="No token is trained on: there are no examples"):
        encode_all(with_template("chatml"), [])
    with pytest.raises(DataError, match="max_length must be at least 1, or None to cut nothing off; got -1"):
        encode(tokenizer, dialogue("Hi", "One"), max_length=-1)


def test_an_answer_that_the_tokenizer_drops_is_an_error(dialogue):
    from tokenizers import Regex, Tokenizer, models, normalizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    backend.normalizer = normalizers.Replace(Regex("[^a]"), "")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=DOTTED)
    with pytest.raises(DataError, match=r"data.jsonl:7: no token is trained on; the tokenizer or"):
        encode(tokenizer, dialogue("a", "😀"))


def test_slow_tokenizer_is_refused(with_template, dialogue, monkeypatch):
    tokenizer = with_template("chatml")
    monkeypatch.setattr(type(tokenizer), "is_fast", False)
    with pytest.raises(DataError, match="fast tokenizer"):
        encode(tokenizer, dialogue("Hi", "One"))


def test_dataset_has_the_columns_that_the_trainer_reads(with_template, dialogue):
    tokenizer = with_template("chatml")
    encoded = encode_all(tokenizer, [dialogue("Hi", "One"), dialogue("Hello", "Two")])
    dataset = to_dataset(encoded)
    assert dataset.column_names == ["input_ids", "labels"]
    assert dataset[1] == {"input_ids": encoded[1].input_ids, "labels": encoded[1].labels}


def test_sample_marks_trained_tokens_by_brackets_and_by_colour(with_template, dialogue):
    tokenizer = with_template("chatml")
    text = render_sample(tokenizer, encode(tokenizer, dialogue("Hi \x1b[2J", "One 😀")))
    assert text.plain == ("<|im_start|>user\nHi ␛[2J<|im_end|>\n<|im_start|>assistant\n[[One 😀<|im_end|>]]\n")
    green = [text.plain[span.start : span.end] for span in text.spans if "green" in str(span.style)]
    assert green == ["[[One 😀<|im_end|>]]"]
    cut = encode(tokenizer, dialogue("Hi", "One two three four"), max_length=14)
    assert f"({cut.cut} more tokens are cut off)" in render_sample(tokenizer, cut).plain


def test_summary_reads_as_one_line(with_template, dialogue):
    summary = summarize([encode(with_template("deepseek-r1"), dialogue("Hi", "One"))])
    assert summary.notes == {UNPROMPTED: 1}
    assert 0 < summary.trained_share < 1
    assert str(summary).startswith("1 examples, ")

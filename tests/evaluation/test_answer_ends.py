"""Answers end at what training teaches as the end of a turn."""

import json

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from qpeft.data import Example, Message, answer_ends, encode, save_ends, settle_ends
from qpeft.evaluation import TASKS, generate, score
from qpeft.evaluation.generation import Sampling, ShownText, stream_answer
from qpeft.evaluation.harness import evaluate_with_harness
from tiny_model import END_OF_TEXT, TEMPLATE, make_scripted_model

QUESTIONS = [[Message("user", "What is 1 and 2?")], [Message("user", "Hi")]]
WRITTEN = TEMPLATE.replace("<|im_start|>", "[").replace("<|im_end|>", " [/S]")
PARTED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% if m.role == 'assistant' and loop.last %}<|return|>{% else %}<|im_end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKS = ("<|im_start|>", "<|im_end|>", "<|return|>")


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def streamed(model, tokenizer, question):
    pieces = []
    shown = ShownText(tokenizer, pieces.append)
    stream_answer(model, tokenizer, question, shown, max_new_tokens=20, sampling=Sampling())
    assert "".join(pieces) == shown.text
    return shown.text.strip()


@pytest.fixture(
    params=[
        ("ab3<|im_end|>", {}),
        ("ab3<|im_end|>", {"special": False}),
        ("ab3 [/S]", {"template": WRITTEN}),
        ("ab3<|im_end|>", {"template": PARTED, "marks": MARKS}),
        ("ab3<|return|>", {"template": PARTED, "marks": MARKS}),
    ],
    ids=["special", "ordinary", "several-tokens", "an-end-of-earlier-turns", "the-end-of-the-last-turn"],
)
def scripted(request, tmp_path):
    """Model and tokenizer whose answer is ab3, then an end of turn that is not the model's end of text."""
    says, options = request.param
    return load(make_scripted_model(tmp_path / "model", says, **options))


def test_answers_in_batches_and_streamed_end_with_the_turn(scripted):
    model, tokenizer = scripted
    cut = []
    assert generate(model, tokenizer, QUESTIONS, max_new_tokens=20, on_cut=cut.append) == ["ab3", "ab3"]
    assert cut == []
    assert streamed(model, tokenizer, QUESTIONS[0]) == "ab3"
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id, "the model is left as it was"


def test_no_token_is_made_behind_the_end_of_a_turn(scripted):
    model, tokenizer = scripted
    made = []
    forward = model.forward
    model.forward = lambda *args, **rest: made.append(1) or forward(*args, **rest)
    generate(model, tokenizer, QUESTIONS, max_new_tokens=40)
    assert len(made) <= len("ab3 [/S]")


def test_an_answer_that_does_not_end_is_said_to_be_cut_off(scripted):
    model, tokenizer = scripted
    cut = []
    assert generate(model, tokenizer, QUESTIONS, max_new_tokens=2, on_cut=cut.append) == ["ab", "ab"]
    assert sorted(cut) == [0, 1]


def test_tasks_grade_what_stands_before_the_end(scripted):
    model, tokenizer = scripted
    examples = [Example((*question, Message("assistant", "3")), {}, "x:1") for question in QUESTIONS]
    encoded = [encode(tokenizer, example) for example in examples]
    scores = score(model, tokenizer, examples, encoded, task=TASKS["word_problems"])
    assert [(answer.text, answer.right, answer.cut) for answer in scores.answers] == [("ab3", True, False)] * 2


def test_lm_eval_stops_where_training_ends_turns(scripted, tmp_path):
    model, tokenizer = scripted
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "data.jsonl").write_text(json.dumps({"question": "Hi", "answer": "ab3"}) + "\n")
    (folder / "task.yaml").write_text(
        "task: said\ndataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: {folder / 'data.jsonl'}}}}}\n"
        "test_split: test\noutput_type: generate_until\ndoc_to_text: '{{question}}'\n"
        "doc_to_target: '{{answer}}'\ngeneration_kwargs: {max_gen_toks: 20}\n"
        "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n"
    )
    (found,) = evaluate_with_harness(model, tokenizer, ["said"], task_folder=folder, chat=True)
    assert (found.metric, found.value) == ("exact_match", 1.0)


def test_what_ends_an_answer_is_what_training_teaches_after_it(scripted):
    """An independent right answer: the last trained token of each turn of an encoded dialogue, or the text of all."""
    model, tokenizer = scripted
    ends = answer_ends(tokenizer, model.generation_config)
    dialogue = (Message("user", "q"), Message("assistant", "One"), Message("user", "r"), Message("assistant", "Two"))
    encoded = encode(tokenizer, Example(dialogue, {}, "x:1"))
    taught = tokenizer.decode([token for token in encoded.labels if token != -100])
    for end in taught.replace("Two", "One").split("One")[1:]:
        assert end.strip() in [text.strip() for text in (*ends.texts, *tokenizer.convert_ids_to_tokens(ends.tokens))]
    assert encoded.notes == ()


def test_the_news_are_one_sentence_and_only_where_there_are_any(tmp_path):
    model, tokenizer = load(make_scripted_model(tmp_path / "model", "ab3<|im_end|>"))
    ends = answer_ends(tokenizer, model.generation_config)
    assert ends.news == (
        "answers end at '<|im_end|>', as the chat template ends them and training teaches; the model by itself stops "
        "at <|endoftext|>"
    )
    assert tokenizer.convert_ids_to_tokens(ends.tokens) == ["<|im_end|>", END_OF_TEXT]
    model.generation_config.eos_token_id = list(ends.tokens)
    assert answer_ends(tokenizer, model.generation_config).news == ""
    tokenizer.chat_template = None
    assert answer_ends(tokenizer, None).tokens == (tokenizer.eos_token_id,)


def test_a_mark_between_thinking_and_answer_does_not_end_what_a_model_of_thoughts_says(tmp_path):
    """gpt-oss ends earlier answers by the mark that also stands between its thinking and its answer."""
    folder = make_scripted_model(
        tmp_path / "model", "ab<|im_end|>c<|return|>", template=PARTED, marks=MARKS, own=MARKS[2:]
    )
    model, tokenizer = load(folder)
    assert generate(model, tokenizer, QUESTIONS, max_new_tokens=20) == ["abc", "abc"]


def test_an_end_that_is_spelled_out_in_an_answer_does_not_end_it(tmp_path):
    """Complaint: a server stops at the text of an end-of-turn token that an answer quotes (LM Studio 1509)."""
    model, tokenizer = load(make_scripted_model(tmp_path / "model", "</s2>k<|im_end|>", marks=(*MARKS[:2], "</s>")))
    assert generate(model, tokenizer, QUESTIONS[:1], max_new_tokens=20) == ["</s2>k"]
    spelled = [tokenizer.convert_tokens_to_ids(letter) for letter in "<|im_end|>"]
    assert tokenizer.decode(answer_ends(tokenizer, None).cut([*spelled, spelled[0]])[0]) == "<|im_end|><"


def test_a_full_stop_or_a_line_break_after_an_answer_is_no_end_of_turn(tmp_path):
    for number, after in enumerate((".", "\n\n", "")):
        template = f"{{% for m in messages %}}{{{{ m.content }}}}{after}{{% endfor %}}\n"
        _, tokenizer = load(make_scripted_model(tmp_path / str(number), "ab", template=template))
        assert answer_ends(tokenizer, None).texts == ()


def test_a_template_that_wants_a_system_message_or_one_question_only_is_heard_too(tmp_path):
    _, tokenizer = load(make_scripted_model(tmp_path / "model", "ab"))
    for refusal in ("messages[0].role != 'system'", "messages | length > 2"):
        tokenizer.chat_template = f"{{% if {refusal} %}}{{{{ raise_exception('no') }}}}{{% endif %}}{TEMPLATE}"
        assert tokenizer.convert_ids_to_tokens(answer_ends(tokenizer, None).tokens) == ["<|im_end|>", END_OF_TEXT]


def test_the_rest_of_a_generation_config_is_kept_even_at_odds_with_itself(tmp_path):
    """Complaint: a merge loses the generation config (mergekit 275). transformers would refuse to save this one."""
    model, tokenizer = load(make_scripted_model(tmp_path / "model", "ab3<|im_end|>"))
    model.generation_config.update(do_sample=False, temperature=0.3, repetition_penalty=1.2)
    save_ends(model.generation_config, answer_ends(tokenizer, model.generation_config), tmp_path)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    found = json.loads((tmp_path / "generation_config.json").read_text())
    assert (found["temperature"], found["repetition_penalty"]) == (0.3, 1.2)
    assert tokenizer.convert_ids_to_tokens(found["eos_token_id"]) == ["<|im_end|>", END_OF_TEXT]


def test_a_model_without_a_generation_config_or_with_a_wrong_end_of_text_is_no_trouble(tmp_path):
    """Such as custom code that cannot generate by itself, and a config's default number that the tokenizer lacks."""
    model, tokenizer = load(make_scripted_model(tmp_path / "model", "ab3<|im_end|>"))
    model.generation_config.eos_token_id = [99_999, tokenizer.convert_tokens_to_ids("q")]
    ends = answer_ends(tokenizer, model.generation_config)
    assert ends.news.endswith("the model by itself stops at 99999, q")
    assert generate(model, tokenizer, QUESTIONS, max_new_tokens=20) == ["ab3", "ab3"]
    settle_ends(None, ends)
    save_ends(None, answer_ends(tokenizer, None), tmp_path)
    found = json.loads((tmp_path / "generation_config.json").read_text())
    assert tokenizer.convert_ids_to_tokens(found["eos_token_id"]) == ["<|im_end|>", END_OF_TEXT]

"""`qpeft chat` with piped questions, and the terminal's keys."""

import io
import sys

import pytest
from rich.console import Console
from transformers import AutoTokenizer
from transformers.generation.streamers import BaseStreamer

from qpeft.evaluation.generation import Sampling, ShownText
from qpeft_cli.adapted import load_adapted
from qpeft_cli.conversation import Conversation, Speaker


@pytest.fixture
def chat(qpeft, talkative, monkeypatch):
    """A function: pipe lines into `qpeft chat`; what it printed after each, without the lines themselves."""

    def run(*lines, options=()):
        data = "".join(line + "\n" for line in lines) if isinstance(lines[0], str) else lines[0]
        data = data.encode() if isinstance(data, str) else data
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        return qpeft("chat", talkative, "--max-new-tokens", "8", *options)

    return run


def replies(out):
    """Text after each '> question', up to the next."""
    return [part.split("\n", 1)[1].strip() for part in ("\n" + out).split("\n> ")[1:]]


def test_an_answer_is_that_of_generate(chat, qpeft, talkative):
    code, out, _ = chat("What is 1 and 2?")
    assert code == 0
    generated = qpeft("generate", talkative, "What is 1 and 2?", "--max-new-tokens", "8")[1]
    assert replies(out) == [generated.strip()]


def test_history_is_part_of_the_question_until_it_is_reset(chat):
    _, out, _ = chat("What is 1 and 2?", "What is 1 and 2?", "/reset", "What is 1 and 2?")
    first, second, _, fourth = replies(out)
    assert first == fourth
    assert first != second


def test_base_and_adapter_answer_alone_or_both(chat, qpeft, talkative):
    _, out, _ = chat("/base", "Hi", "/reset", "/adapter", "Hi", "/reset", "/both", "Hi")
    _, base, _, _, adapter, _, _, both = replies(out)
    base = base.removeprefix("[base model]\n")
    assert base != adapter
    assert both == f"[base model]\n{base}\n[with adapter]\n{adapter}"
    _, generated, _ = qpeft("generate", talkative, "Hi", "--max-new-tokens", "8", "--base")
    assert generated.split("\n", 1)[1].strip() == f"[base model] {base}\n{adapter}"


@pytest.mark.parametrize(("width", "are_beside"), [(120, True), (99, False)])
def test_both_answers_stand_side_by_side_where_the_terminal_is_wide(talkative, monkeypatch, width, are_beside):
    words = {Speaker.BASE: "base", Speaker.ADAPTER: "tuned"}
    said = iter([[f"{word}{number} " for number in range(40)] for word in words.values()])

    def answer(model, tokenizer, messages, streamer, **_):
        for word in next(said):
            streamer._show(streamer.text + word)

    monkeypatch.setattr("qpeft_cli.conversation.stream_answer", answer)
    console = Console(
        force_terminal=True, width=width, height=50, file=io.StringIO(), record=True, soft_wrap=True, markup=False
    )
    conversation = Conversation(
        load_adapted(talkative), console, system=None, max_new_tokens=8, sampling=Sampling(temperature=0)
    )
    conversation.run(["/both", "Hi"])
    assert conversation._turns[-1].content.split() == [f"tuned{number}" for number in range(40)]
    shown = console.export_text()
    last = shown[shown.rindex("[base model]") :].splitlines()
    assert ("[with adapter]" in last[0]) is are_beside
    half = width // 2
    left, right = ([line[part] for line in last[1:]] for part in (slice(half), slice(half, None)))
    if are_beside:
        assert "".join(left).split() == [f"base{number}" for number in range(40)]
        assert "".join(right).split() == [f"tuned{number}" for number in range(40)]


def test_a_system_message_changes_answers_and_can_be_taken_away(chat):
    _, out, _ = chat("Hi", "/reset", "/system Be terse.", "Hi", "/reset", "/system", "Hi")
    plain, _, set_to, terse, _, _, again = replies(out)
    assert set_to == "system message: Be terse."
    assert plain == again != terse
    _, out, _ = chat("Hi", options=["--system", "Be terse."])
    assert replies(out) == [terse]


def test_a_dialogue_too_long_for_the_model_loses_its_oldest_messages_with_a_note(chat, tiny_model, monkeypatch):
    question, tokenizer = "What is 1 and 2?", AutoTokenizer.from_pretrained(tiny_model)
    free = replies(chat(*[question] * 3)[1])
    two = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": free[0]},
        {"role": "user", "content": question},
    ]
    fits_two = len(tokenizer.apply_chat_template(two, add_generation_prompt=True)["input_ids"]) + 8
    monkeypatch.setattr("qpeft_cli.conversation.context_length", lambda _: fits_two)
    first, second, third, _, fresh = replies(chat(*[question] * 3, "/reset", question)[1])
    assert [first, second, fresh] == [free[0], free[1], free[0]]
    assert "messages are forgotten" in third.splitlines()[0]
    assert third.splitlines()[1:] != free[2].splitlines()


def test_a_question_too_long_for_the_model_is_refused_and_forgotten(chat, monkeypatch):
    monkeypatch.setattr("qpeft_cli.conversation.context_length", lambda _: 60)
    _, out, _ = chat("word " * 50, "Hi")
    refused, answered = replies(out)
    assert "Shorten it" in refused
    _, out, _ = chat("Hi")
    assert replies(out) == [answered]


def test_an_answer_that_leaves_no_room_for_a_question_is_refused(chat):
    code, _, err = chat("Hi", options=["--max-new-tokens", "2048"])
    assert code == 2
    assert "2,048" in err


def test_sampling_with_a_seed_is_repeatable_and_differs_from_greedy(chat):
    options = ["--temperature", "2", "--top-k", "50", "--seed", "1"]
    one, two = (chat("Hi", options=options)[1] for _ in range(2))
    assert one == two
    assert one != chat("Hi")[1]


def test_ctrl_c_stops_the_answer_and_not_the_conversation(chat, monkeypatch):
    put, calls = ShownText.put, []

    def interrupted_at_the_third_token(self, value):
        calls.append(value)
        if len(calls) == 4:
            raise KeyboardInterrupt
        put(self, value)

    monkeypatch.setattr(ShownText, "put", interrupted_at_the_third_token)
    code, out, _ = chat("Hi", "/reset", "Hi", "/help")
    assert code == 0
    stopped, _, whole, listed = replies(out)
    said, note = stopped.rsplit("\n", 1)
    assert note == "stopped"
    assert whole.startswith(said)
    assert "messages so far: 2" in listed


def test_ctrl_d_leaves_and_ctrl_c_at_the_prompt_does_not(qpeft, talkative, monkeypatch):
    typed = iter([KeyboardInterrupt, "Hi", EOFError])

    def keyboard(_):
        key = next(typed)
        if isinstance(key, str):
            return key
        raise key

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", keyboard)
    code, out, _ = qpeft("chat", talkative, "--max-new-tokens", "2")
    assert code == 0
    assert "/exit or Ctrl-D leaves" in out
    assert next(typed, None) is None


def test_commands_are_listed_corrected_and_exit_leaves(chat):
    code, out, _ = chat("/help", "/rest", "/exit", "Hi")
    assert code == 0
    listed, corrected, *after = replies(out)
    assert all(name in listed for name in ("/reset", "/base", "/adapter", "/both", "/system", "/exit", "/help"))
    assert corrected == "There is no command /rest; did you mean /reset?"
    assert after == [""]


def test_piped_bytes_that_are_no_text_are_refused_by_line(chat):
    code, _, err = chat(b"\xef\xbb\xbf/help\nna\xefve\n")
    assert code == 2
    assert "Line 2 of the standard input is not UTF-8" in err


def test_text_is_shown_in_whole_characters_and_is_in_the_end_that_of_the_tokens(tiny_model):
    tokenizer, shown = AutoTokenizer.from_pretrained(tiny_model), []
    text = "Größe 你好 :smile: [bold]"
    tokens = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"][0]
    stream = ShownText(tokenizer, shown.append)
    assert isinstance(stream, BaseStreamer)
    stream.put(tokens[:1])  # the prompt
    for token in tokens:
        stream.put(token[None])
    stream.end()
    assert "".join(shown) == stream.text == text
    assert len(shown) > 5
    assert not any("\ufffd" in part for part in shown)

"""`qpeft generate` from a file to a file."""

import json
import re
import shutil

import jinja2
import pytest

from qpeft.runs.files import used_alone
from qpeft_cli import answering
from qpeft_cli.adapted import load_adapted

QUESTIONS = [f"What is {number} and {'one ' * number}?" for number in range(1, 8)]


@pytest.fixture
def files(tmp_path):
    """Questions of growing length, and where answers go."""
    source = tmp_path / "questions.jsonl"
    source.write_text("".join(json.dumps({"id": i, "question": q}) + "\n" for i, q in enumerate(QUESTIONS)))
    return source, tmp_path / "answers.jsonl"


@pytest.fixture
def generate(qpeft, talkative, files):
    """A function: generate from the one file to the other."""

    def run(*options, source=None):
        return qpeft("generate", talkative, "--input", source or files[0], "--output", files[1], *options)

    return run


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_answers_in_batches_are_those_of_questions_alone(qpeft, generate, files, talkative):
    code, out, _ = generate("--batch-size", "3", "--max-new-tokens", "12", "--base")
    assert (code, out.strip()) == (0, f"7 answers are in {files[1]}")
    found = rows(files[1])
    assert [(row["id"], row["question"]) for row in found] == list(enumerate(QUESTIONS))
    adapted = load_adapted(talkative)
    for row in found:
        text = f"<|im_start|>user\n{row['question']}<|im_end|>\n<|im_start|>assistant\n"
        ids = adapted.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        for column, disabled in (("generated", False), ("generated_base", True)):
            with adapted.without_adapter(disabled):
                tokens = adapted.model.generate(input_ids=ids, max_new_tokens=12, do_sample=False)
            answer = adapted.tokenizer.decode(tokens[0, ids.shape[1] :], skip_special_tokens=True)
            assert row[column] == answer.strip()
    assert len({row["generated"] for row in found}) > 1
    assert any(row["generated"] != row["generated_base"] for row in found)


def test_a_question_too_long_for_the_model_is_named_before_it_is_asked(qpeft, talkative):
    code, out, err = qpeft("generate", talkative, "Short?", "long " * 3000, "--max-new-tokens", "5")
    assert (code, out) == (2, "")
    assert re.match(
        r"error: question 2: the question has \d+,\d+ tokens, and the model reads 2,048 at once, an answer of up to 5",
        err,
    )


def test_the_folder_of_the_answers_is_made(qpeft, talkative, files):
    target = files[1].parent / "sub/deep/answers.jsonl"
    options = ("--input", files[0], "--output", target, "--max-new-tokens", "1")
    assert qpeft("generate", talkative, *options)[0] == 0
    assert len(rows(target)) == len(QUESTIONS)


def test_an_interrupted_file_is_continued_and_ends_as_an_undisturbed_one(generate, files, monkeypatch):
    options = ["--batch-size", "2", "--max-new-tokens", "6"]
    assert generate(*options)[0] == 0
    whole = files[1].read_bytes()
    for path in files[1].parent.glob("answers.jsonl*"):
        path.unlink()

    answer, asked = answering.generate, []

    def interrupted(model, tokenizer, questions, **rest):
        asked.append(len(questions))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return answer(model, tokenizer, questions, **rest)

    monkeypatch.setattr(answering, "generate", interrupted)
    code, _, err = generate(*options)
    assert code == 130
    assert "the same command continues it" in err
    assert files[1].read_bytes() == b"".join(whole.splitlines(keepends=True)[:4])
    with files[1].open("ab") as file:
        file.write(b'{"id": 4, "ques')  # killed while writing
    code, out, _ = generate("--batch-size", "5", "--max-new-tokens", "6")
    assert code == 0
    assert "4 of 7 answers already" in out
    assert asked == [2, 2, 2, 3]
    assert files[1].read_bytes() == whole


def test_a_finished_file_is_left_alone_without_loading_a_model(generate, files, monkeypatch):
    generate("--max-new-tokens", "2")
    before = files[1].read_bytes()
    monkeypatch.setattr(answering, "load_onto", None)
    assert generate("--max-new-tokens", "2")[0] == 0
    assert files[1].read_bytes() == before


def test_two_at_once_do_not_write_to_one_file(generate, files):
    with used_alone(files[1]):
        code, _, err = generate("--max-new-tokens", "2")
    assert code == 2
    assert "Another process is writing" in err
    assert not files[1].exists()


def test_a_device_answers_a_file_as_the_simulator_does(generate, files, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    files[0].write_text("".join(json.dumps({"question": question}) + "\n" for question in QUESTIONS[:2]))
    generate("--max-new-tokens", "3")
    here = files[1].read_bytes()
    for path in files[1].parent.glob("answers.jsonl*"):
        path.unlink()
    code, out, _ = generate("--max-new-tokens", "3", "--device", "local", "--device-option", "shots=null")
    assert code == 0
    assert "sent to local as run" in out
    assert files[1].read_bytes() == here


def test_other_questions_or_options_do_not_continue_a_file(generate, files):
    generate("--max-new-tokens", "2")
    before = files[1].read_bytes()
    code, _, err = generate("--max-new-tokens", "3")
    assert code == 2
    assert "another max_new_tokens" in err
    files[0].write_text('{"question": "Why?"}\n')
    code, _, err = generate("--max-new-tokens", "2")
    assert code == 2
    assert "another input" in err
    assert files[1].read_bytes() == before


def test_lines_of_text_are_answered_too(generate, files, tmp_path):
    (tmp_path / "questions.txt").write_text("Why?\n\nHow?\n")
    assert generate("--max-new-tokens", "2", source=tmp_path / "questions.txt")[0] == 0
    assert [row["question"] for row in rows(files[1])] == ["Why?", "How?"]


def test_bad_files_are_one_sentence(qpeft, generate, files, talkative, tmp_path):
    source = tmp_path / "bad.jsonl"
    taken, long = {"question": "Why?", "generated": "x"}, {"question": "why " * 2000}
    for row, message in ((taken, "has a column 'generated' already"), (long, "bad.jsonl:1: the question has")):
        source.write_text(json.dumps(row) + "\n")
        code, _, err = generate(source=source)
        assert code == 2
        assert message in err
        assert "Traceback" not in err
    for bad in (tmp_path, tmp_path / "none.jsonl", tmp_path / "x.md"):
        assert generate(source=bad)[0] == 2
    same = qpeft("generate", talkative, "--input", source, "--output", source)
    assert same[0] == 2
    assert "same file" in same[2]
    into_folder = qpeft("generate", talkative, "--input", files[0], "--output", tmp_path)
    assert into_folder[0] == 2
    assert "Is a directory" in into_folder[2]


@pytest.mark.parametrize(
    "options",
    [
        ["--input", "a.txt"],
        ["--output", "b"],
        ["Hi", "--input", "a.txt", "--output", "b"],
        ["Hi", "--device-option", "shots=5"],
    ],
)
def test_options_without_what_they_belong_to_are_refused(qpeft, talkative, options):
    assert qpeft("generate", talkative, *options)[0] == 2


def test_a_template_that_refuses_a_question_is_one_sentence(generate, monkeypatch):
    def refusing(*_, **__):
        raise jinja2.TemplateError("roles must alternate")

    monkeypatch.setattr("transformers.PreTrainedTokenizerBase.apply_chat_template", refusing)
    code, _, err = generate()
    assert code == 2
    assert "roles must alternate" in err


def test_code_of_a_model_is_not_run_because_a_folder_says_so(qpeft, talkative, tmp_path):
    model, ran = tmp_path / "model", tmp_path / "ran"
    model.mkdir()
    (model / "evil.py").write_text(f"from pathlib import Path\nPath({str(ran)!r}).touch()\n")
    auto_map = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model", "AutoTokenizer": ["evil.T", None]}
    for name in ("config.json", "tokenizer_config.json"):
        (model / name).write_text(json.dumps({"model_type": "evil", "auto_map": auto_map}))
    folder = shutil.copytree(talkative, tmp_path / "downloaded")
    record = json.loads((folder / "run.json").read_text())
    record["recipe"]["model"] = {"name": str(model), "trust_remote_code": True}
    (folder / "run.json").write_text(json.dumps(record))
    for command in (["generate", folder, "Hi"], ["chat", folder], ["eval", folder], ["export", folder, tmp_path / "x"]):
        code, _, err = qpeft(*command)
        assert code == 2
        assert "--trust-remote-code" in err
        assert not ran.exists()
    assert qpeft("generate", folder, "Hi", "--trust-remote-code")[0] == 2  # the code makes no model
    assert ran.exists()

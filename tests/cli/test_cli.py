"""The command line as a user meets it: output, exit codes, and never a traceback."""

import pytest


def test_train_eval_and_generate_work_on_one_folder(qpeft, recipe_file, tmp_path, sums):
    code, out, _ = qpeft("train", recipe_file, "--training.steps", "4")
    assert code == 0, out
    assert "saved to" in out
    code, out, _ = qpeft("eval", tmp_path / "run", "--base")
    assert code == 0
    assert "base model" in out
    assert "with adapter" in out
    code, out, _ = qpeft("eval", tmp_path / "run", "--data", sums, "--exact-match", "--items", "3")
    assert code == 0
    assert "0.0%" in out or "33.3%" in out
    code, out, _ = qpeft("generate", tmp_path / "run", "What is 1 and 2?", "--max-new-tokens", "4", "--base")
    assert code == 0
    assert "> What is 1 and 2?" in out


def test_inspect_counts_parameters_and_marks_the_answer(qpeft, recipe_file):
    code, out, _ = qpeft("inspect", recipe_file)
    assert code == 0
    assert "q_proj" in out
    assert "than LoRA of rank 4" in out
    assert "[[0<|im_end|>]]" in out


def test_inspect_shows_lengths_copies_and_leaks_of_the_data_alone(qpeft, recipe_file, tmp_path, sums):
    leaked = tmp_path / "leaked.jsonl"
    rows = sums.read_text(encoding="utf-8").splitlines()
    leaked.write_text("\n".join([rows[3], rows[5].upper().replace("QUESTION", "question").replace("ANSWER", "answer")]))
    data = f"[{sums}, {{path: {sums}, limit: 2}}]"
    code, out, _ = qpeft(
        "inspect", recipe_file, "--data", "--data.train", data, "--data.hold_out", "null", "--data.eval", leaked
    )
    assert code == 0
    assert f"{sums}, read as question and answer; {sums}, read as question and answer: 26 examples" in out
    assert "100 %" in out
    assert "[[0<|im_end|>]]" in out
    assert (
        f"copies among the training examples: 2 exact, 0 but for case, punctuation and spaces, first at {sums}:" in out
    )
    assert "also trained on: 1 exact, 1 but for case" in out
    assert "q_proj" not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "none.yaml"), "cannot be read"),
        (("eval", "none"), "run.json"),
        (("generate", "none", "Hi"), "run.json"),
        (("inspect", "none.yaml"), "cannot be read"),
    ],
)
def test_errors_are_one_sentence_with_exit_code_2(qpeft, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = qpeft(*arguments)
    assert code == 2
    assert message in err
    assert "Traceback" not in out + err


def test_square_brackets_in_an_error_are_shown_as_they_are(qpeft, recipe_file):
    code, _, err = qpeft("train", recipe_file, "--adapter.ansatz", "'[bold]'")
    assert code == 2
    assert "[bold]" in err


def test_unknown_commands_and_missing_arguments_are_refused(qpeft):
    assert qpeft("trian")[0] == 2
    assert qpeft("train")[0] == 2


def test_help_lists_the_commands(qpeft):
    code, out, _ = qpeft("--help")
    assert code == 0
    assert all(name in out for name in ("train", "eval", "generate", "inspect"))

"""The command line as a user meets it: output, exit codes, and never a traceback."""

import re
import shutil

import pytest
import torch


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
    assert "% fewer trainable parameters than LoRA of rank 4" in out
    assert "[[0<|im_end|>]]" in out


def test_inspect_counts_what_all_layers_share_once(qpeft, recipe_file):
    adapter = "{type: quantum_weighted, rank: 4, num_qubits: 4, depth: 1, target_modules: all-linear}"
    code, out, _ = qpeft("inspect", recipe_file, "--adapter", adapter)
    assert code == 0
    assert re.search(r"q_proj\W+32 x 32\W+2\W+0\W+0\W", out), out
    assert re.search(r"shared by all\W+16\W", out)  # two circuits of eight angles
    assert re.search(r"together\W+14\W+16\W", out)


def test_inspect_says_more_where_an_adapter_is_larger_than_lora(qpeft, recipe_file):
    code, out, _ = qpeft("inspect", recipe_file, "--adapter", "{type: loretta, target_modules: [q_proj, v_proj]}")
    assert code == 0
    # q_proj 1184 and v_proj 1056 against 8 (32 + 32) and 8 (32 + 16).
    assert "150.0% more trainable parameters than LoRA of rank 8." in out


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
        (("eval", "none"), "none does not exist"),
        (("generate", "none", "Hi"), "none does not exist"),
        (("inspect", "none.yaml"), "cannot be read"),
        (("eval", "none", "--items", "3"), "Add --task (such as --task gsm8k)"),
    ],
)
def test_errors_are_one_sentence_with_exit_code_2(qpeft, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = qpeft(*arguments)
    assert code == 2
    assert message in err
    assert "Traceback" not in out + err


@pytest.mark.parametrize("method", ["qtha", "lora"])
@pytest.mark.parametrize("verb", ["train", "inspect"])
@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("target_modules", "q_proj", "it matches none. Write a list: [q_proj]."),
        ("modules_to_save", "[lm_haed]", "modules_to_save names 'lm_haed', and the model has no such module"),
        ("layers_to_transform", "[9]", "layers_to_transform names layer 9, in which target_modules has nothing"),
        ("exclude_modules", "[qproj]", "exclude_modules names 'qproj', and the model has no such module"),
    ],
)
def test_options_that_name_nothing_are_refused_before_a_folder_is_made(
    qpeft, recipe_file, tmp_path, method, verb, option, value, message
):
    options = [*("--adapter", f"{{type: {method}, target_modules: [q_proj]}}"), f"--adapter.{option}", value]
    code, _, error = qpeft(verb, recipe_file, *options, "--output.folder", tmp_path / "new")
    assert (code, message in error) == (2, True), error
    assert not (tmp_path / "new").exists()


def test_a_usual_rank_is_taken_and_how_it_is_split_is_said(qpeft, recipe_file, caplog):
    code, out, _ = qpeft("inspect", recipe_file, "--adapter.rank", 16)
    assert code == 0
    assert "LoRA of rank 16" in out
    assert "rank 16: 2 circuits of 8 qubits side by side" in caplog.text
    code, _, error = qpeft("inspect", recipe_file, "--adapter.rank", 13)
    assert (code, "Nearest ranks that can: 12 or 14" in error) == (2, True)


def test_square_brackets_and_colons_in_a_name_are_shown_as_they_are(qpeft, recipe_file, tmp_path, sums):
    folder, data = tmp_path / "[red] [" / "b] :smile:", tmp_path / "[bold]sums.jsonl"
    data.write_bytes(sums.read_bytes())
    code, out, err = qpeft("train", recipe_file, f"--output.folder='{folder}'", f"--data.train='{data}'")
    assert code == 0, err
    assert f"saved to {folder}" in out
    assert f"({data}, read as" in out
    code, out, _ = qpeft("inspect", recipe_file, "--data", f"--data.train='{data}'")
    assert code == 0
    assert f"{data}, read as" in out


def test_square_brackets_in_an_error_are_shown_as_they_are(qpeft, recipe_file):
    code, _, err = qpeft("train", recipe_file, "--adapter.ansatz", "'[bold]'")
    assert code == 2
    assert "[bold]" in err


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("1 GiB"), MemoryError(), RuntimeError("DefaultCPUAllocator: no")]
)
def test_a_full_memory_is_one_sentence_and_a_mistake_of_ours_is_not(qpeft, monkeypatch, tmp_path, error):
    def full(*_):
        raise error

    monkeypatch.setattr("qpeft_cli.adapted.read_source", full)
    code, _, err = qpeft("chat", tmp_path)
    assert code == 2
    assert "Lower the batch size" in err
    assert err.count("\n") == 1
    error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        qpeft("chat", tmp_path)


def test_adapters_of_other_trainers_are_asked_with_the_base_model_that_they_name(qpeft, talkative, tmp_path):
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(talkative / name, tmp_path)
    ask = ["Hi", "--max-new-tokens", "4"]
    assert qpeft("generate", tmp_path, *ask)[:2] == qpeft("generate", talkative, *ask)[:2]
    config = tmp_path / "adapter_config.json"
    for content, message in (("{", "cannot be read"), ("[]", "cannot be read"), ("{}", "names no base model")):
        config.write_text(content)
        code, _, err = qpeft("generate", tmp_path, *ask)
        assert code == 2
        assert message in err
    code, _, err = qpeft("eval", tmp_path)
    assert code == 2
    assert "run.json" in err


def test_unknown_commands_and_missing_arguments_are_refused(qpeft):
    assert qpeft("trian")[0] == 2
    assert qpeft("train")[0] == 2


def test_help_lists_the_commands(qpeft):
    code, out, _ = qpeft("--help")
    assert code == 0
    assert all(name in out for name in ("train", "eval", "generate", "inspect"))


def test_a_number_of_answers_is_refused_where_nothing_is_answered(qpeft, tmp_path):
    code, _, err = qpeft("eval", tmp_path, "--items", "3")
    assert code == 2
    assert "--items is about generated answers, and only the loss is measured here" in err

"""`qpeft init` and `qpeft data`: what they write trains, fits the data, and overwrites nothing."""

import pytest
import yaml

from qpeft.training import load_recipe
from qpeft.training.starter import GOALS, look_at, starter_recipe
from qpeft_cli.main import COMMANDS


@pytest.mark.parametrize("goal", GOALS)
def test_a_recipe_for_any_goal_is_read_and_counted(goal, qpeft, tiny_model, sums, tmp_path):
    file = tmp_path / "mine.yaml"
    code, out, err = qpeft("init", file, "--model", tiny_model, "--data", sums, "--goal", goal)
    assert code == 0, err
    assert "24 examples, read as question and answer" in out
    recipe = load_recipe(file)
    assert recipe.adapter.type == GOALS[goal][1]["type"]
    # 24 rows of which 4 are held out, in batches of 8: three steps an epoch.
    assert recipe.training.num_steps(20) >= 60
    code, out, err = qpeft("inspect", file)
    assert code == 0, err


def test_what_init_writes_trains_without_a_change(qpeft, tiny_model, sums, tmp_path):
    file, folder = tmp_path / "mine.yaml", tmp_path / "run"
    assert qpeft("init", file, "--model", tiny_model, "--data", sums, "--output", folder)[0] == 0
    code, _, err = qpeft("train", file, "--training.steps", "2")
    assert code == 0, err
    assert (folder / "adapter_model.safetensors").exists()


def test_rows_with_equations_are_trained_and_graded_by_them(tiny_model):
    look = look_at("package:word_problems", str(tiny_model))
    assert look.task == "word_problems"
    assert look.reading == {"prompt": "{question}", "response": "{equation} = {answer}"}


def test_held_out_data_that_are_named_are_not_split_off(qpeft, tiny_model, sums, tmp_path):
    file = tmp_path / "mine.yaml"
    assert qpeft("init", file, "--model", tiny_model, "--data", sums, "--eval", sums)[0] == 0
    data = yaml.safe_load(file.read_text(encoding="utf-8"))["data"]
    assert data["eval"] == str(sums)
    assert "hold_out" not in data


def test_names_that_yaml_would_take_for_something_else_come_back_as_they_were(tiny_model, sums):
    look = look_at(str(sums), str(tiny_model))
    text = starter_recipe(str(tiny_model), "no", "small", look, held_out="1e3 #x", folder="a: b")
    values = yaml.safe_load(text)
    assert (values["data"]["train"], values["data"]["eval"], values["output"]["folder"]) == ("no", "1e3 #x", "a: b")


def test_a_recipe_that_is_there_is_not_overwritten(qpeft, tmp_path):
    (tmp_path / "mine.yaml").write_text("precious")
    code, _, err = qpeft("init", tmp_path / "mine.yaml")
    assert (code, (tmp_path / "mine.yaml").read_text()) == (2, "precious")
    assert "is there already" in err


def test_unknown_columns_are_named_with_what_to_give(qpeft, tiny_model, tmp_path):
    (tmp_path / "odd.csv").write_text("title,summary\nA,B\n")
    code, _, err = qpeft("init", tmp_path / "m.yaml", "--model", tiny_model, "--data", tmp_path / "odd.csv")
    assert code == 2
    assert "'title', 'summary'" in err
    given = ("--prompt", "{title}", "--response", "{summary}")
    code, _, err = qpeft("init", tmp_path / "m.yaml", "--model", tiny_model, "--data", tmp_path / "odd.csv", *given)
    assert code == 0, err


def test_a_data_set_is_written_once_and_nothing_else_is_overwritten(qpeft, tmp_path):
    file = tmp_path / "problems.jsonl"
    for _ in range(2):
        code, _, _ = qpeft("data", "word_problems", file)
        assert (code, len(file.read_text(encoding="utf-8").splitlines())) == (0, 200)
    file.write_text("mine")
    code, _, _ = qpeft("data", "word_problems", file)
    assert (code, file.read_text()) == (2, "mine")
    assert "package:word_problems" in qpeft("data")[1]


def test_a_dry_run_says_how_many_steps_would_follow_and_leaves_no_folder(qpeft, recipe_file, tmp_path):
    before = sorted(tmp_path.iterdir())
    code, out, err = qpeft("train", recipe_file, "--dry-run", "--training.steps", "7")
    assert code == 0, err
    assert "7 steps would follow" in out
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("command", ["init", "data", "train", "eval", "generate", "chat", "inspect", "split", "export"])
def test_help_shows_an_example_that_begins_with_the_command(command, qpeft):
    assert command in COMMANDS
    _, out, _ = qpeft(command, "--help")
    assert f"\n    qpeft {command}" in out


def test_completion_is_offered(qpeft):
    assert "--install-completion" in qpeft("--help")[1]

"""Recipes from YAML and command-line overrides."""

import pytest

from qpeft.errors import RecipeError
from qpeft.training.config import load_recipe

MINIMAL = "model: {name: m}\ndata: {train: t.jsonl}\noutput: {folder: out}\n"


@pytest.fixture
def recipe_file(tmp_path):
    def write(text=MINIMAL):
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_a_minimal_recipe_trains_qtha_with_the_defaults(recipe_file):
    recipe = load_recipe(recipe_file())
    assert (recipe.adapter.type, recipe.seed, recipe.training.batch_size) == ("qtha", 0, 8)


def test_overrides_win_over_the_file_in_both_spellings(recipe_file):
    arguments = ["--training.steps", "7", "--adapter.rank=4", "--seed", "3", "--adapter.target_modules", "[q, v]"]
    recipe = load_recipe(recipe_file(), arguments)
    assert (recipe.training.steps, recipe.seed) == (7, 3)
    assert recipe.adapter.options == {"rank": 4, "target_modules": ["q", "v"]}


@pytest.mark.parametrize("number", ["1e-2", "1E-2", "0.01", "1.0e-2"])
def test_numbers_in_scientific_notation_are_numbers(recipe_file, number):
    recipe = load_recipe(recipe_file(), ["--training.learning_rate", number, "--adapter.alpha", number])
    assert recipe.training.learning_rate == recipe.adapter.options["alpha"] == 0.01


def test_a_value_that_looks_like_an_option_can_follow_an_equals_sign(recipe_file):
    assert load_recipe(recipe_file(), ["--data.prompt=--{question}"]).data.prompt == "--{question}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data.trian", "x"], r"'data.trian'; did you mean 'data.train'"),
        (["--trainning.steps", "1"], r"'trainning'; did you mean 'training'"),
        (["--training.steps", "0"], r"'training.steps'.*greater than 0; got 0"),
        (["--training.steps", "many"], r"'training.steps'.*integer"),
        (["--training.warmup", "1.5"], r"'training.warmup'"),
        (["--model.dtype", "int8"], r"'model.dtype'.*float32"),
        (["--training.steps"], "has no value"),
        (["steps", "3"], "overrides are written"),
        (["--seed.more", "1"], "holds 0 and no keys"),
        (["--training.schedule", "[1"], "is not YAML"),
        (["--data.eval", "e", "--data.hold_out", "3"], "give one of the two"),
        (["--training.steps", "true"], r"'training.steps': a number is needed; got True"),
        (["--data.train", "[{path: a, limit: yes}]"], r"'data.train.0.limit': a number is needed; got True"),
        (["--training.epochs", ".inf"], r"'training.epochs': input should be a finite number; got inf"),
        (["--data.limit", "10000000000000000000"], r"'data.limit': input should be less than"),
        (["--training.report_to", "3"], r"'training.report_to': input should be 'auto', 'none',"),
        (["--output.folder", '" "'], r"'output.folder': a name is needed; got ' '"),
        (["--model.chat_template", '"a\\0b"'], r"'model.chat_template': a name is needed"),
        (["--data.train", "''"], r"'data.train': a name is needed"),
    ],
)
def test_a_wrong_override_is_named(recipe_file, arguments, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(recipe_file(MINIMAL + "seed: 0\n"), arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'model' is missing"),
        ("- a\n- b\n", "must hold sections"),
        ("model: {", "is not YAML"),
        ("model: {nmae: m}\ndata: {train: t}\noutput: {folder: o}\n", "did you mean 'model.name'"),
    ],
)
def test_a_wrong_file_is_named(recipe_file, text, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(recipe_file(text))


def test_a_missing_or_binary_recipe_is_named(tmp_path):
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="is no text file"):
        load_recipe(tmp_path / "binary.yaml")

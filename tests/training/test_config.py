"""Recipes from YAML and command-line overrides."""

import re

import pytest

from qpeft.errors import RecipeError
from qpeft.training.config import load_recipe, parse_recipe

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
        (["--training.steps", "many"], r"'training.steps' must be a whole number; got .many"),
        (["--training.warmup", "1.5"], r"'training.warmup'"),
        (["--model.dtype", "int8"], r"'model.dtype'.*float32"),
        (["--training.steps"], "has no value"),
        (["steps", "3"], "overrides are written"),
        (["--seed.more", "1"], "is 0 here, and has no keys; set --seed as a whole"),
        (["--training.schedule", "[1"], "is not YAML"),
        (["--data.eval", "e", "--data.hold_out", "3"], "give one of the two"),
        (["--training.steps", "true"], r"'training.steps': a number is needed.*; got true"),
        (["--data.train", "[{path: a, limit: yes}]"], r"'data.train.0.limit': a number is needed.*; got true"),
        (["--training.epochs", ".inf"], r"'training.epochs' must be a finite number; got Infinity"),
        (["--data.limit", "10000000000000000000"], r"'data.limit' must be less than"),
        (["--training.report_to", "3"], r"'training.report_to' must be 'auto', 'none',"),
        (["--output.folder", '" "'], r"'output.folder': a name is needed; got"),
        (["--model.chat_template", '"a\\0b"'], r"'model.chat_template': a name is needed"),
        (["--data.train", "''"], r"'data.train': a name is needed"),
    ],
)
def test_a_wrong_override_is_named(recipe_file, arguments, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(recipe_file(MINIMAL + "seed: 0\n"), arguments)


LONG_SOURCE = {"path": "x", "limit": 3, "format": "messages", "prompt": "{question}", "system": "A long one. " * 20}
WRONG = {
    "eval beside hold_out": (
        {"data": {"train": "t", "eval": [LONG_SOURCE], "hold_out": 0.1}},
        "eval and hold_out are both set. eval names a file of held-out examples, hold_out keeps some of train out ",
    ),
    "eval as one entry": (
        {"data": {"train": "t", "eval": {"path": "x"}}},
        "'data.eval' must be a name or a list; one entry with options is a list of one, [{path: ...}]; got",
    ),
    "share and number": ({"data": {"train": "t", "hold_out": 1.5}}, "or a whole number of dialogues; got 1.5."),
    "text for a section": ({"data": "t.jsonl"}, "'data' must be a section with keys of its own, such as train, eval"),
    "no section": ({"adapter": None}, "'adapter' must be a section with keys of its own, such as type; got null."),
    "word for a number": ({"training": {"steps": "many"}}, "'training.steps' must be a whole number; got \"many\"."),
    "half a step": ({"training": {"steps": 1.5}}, "'training.steps' must be a whole number; got 1.5."),
    "one of two kinds": (
        {"training": {"report_to": "comet"}},
        "'training.report_to' must be 'auto', 'none', 'tensorboard', 'wandb', 'trackio' or 'mlflow', or be a list; got",
    ),
    "nothing to compare": (
        {"training": {"keep_best": True}},
        "keep_best needs held-out losses during training, to compare them: set training.eval_every too.",
    ),
    "stray key in one source of several": (
        {"data": {"train": ["a.jsonl", {"path": "b.jsonl", "stray": 1}]}},
        "Unknown key 'data.train.1.stray'; known: path, weight,",
    ),
    "brackets": ({"[": {}, "data": {"train": "t", "a[0]": 1}}, "Unknown key '[';"),
    "no list": ({"data": {"train": []}}, "'data.train' must not be empty; got []."),
    "a list": ([1], "It must be a section with keys of its own, such as seed, model, data; got [1]."),
}


@pytest.mark.parametrize(("values", "sentence"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_said_in_words_of_recipes_and_shortly(values, sentence):
    if isinstance(values, dict):
        values = {"model": {"name": "m"}, "data": {"train": "t"}, "output": {"folder": "o"}, **values}
    with pytest.raises(RecipeError) as raised:
        parse_recipe(values, source="recipe.yaml")
    said = str(raised.value)
    assert sentence in said
    assert len(said) < 300
    # Neither Python's names nor pydantic's, and no dictionary of everything that the section holds.
    assert not re.search(r"None|True|Section|dictionary|instance|validation|pars|'train': ", said)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'model' is missing"),
        ("- a\n- b\n", "must hold keys"),
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
    with pytest.raises(RecipeError, match="is not a text file"):
        load_recipe(tmp_path / "binary.yaml")

"""Whatever a recipe holds, reading it gives a recipe or a RecipeError."""

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qpeft.errors import QpeftError, RecipeError
from qpeft.training import Recipe, load_recipe
from qpeft.training.config import parse_recipe
from qpeft.training.sections import DataSection, SourceSection

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
SOURCES = st.lists(
    st.text(max_size=4) | VALUES | st.dictionaries(st.sampled_from([*SourceSection.model_fields, "pth"]), VALUES),
    max_size=3,
)
DATA = st.dictionaries(st.sampled_from([*DataSection.model_fields, "trian"]), SOURCES | VALUES, max_size=6)
WHOLE = {"model": {"name": "m"}, "data": {"train": "x"}, "output": {"folder": "f"}}
# Sections as they should be, with what may spoil them.
GOOD_DATA = st.fixed_dictionaries(
    {"train": st.text("ab", min_size=1)},
    optional={
        "hold_out": st.floats(0.01, 0.9) | st.integers(1, 9) | VALUES,
        "prompt": st.text(max_size=4),
        "max_length": st.integers(1, 999),
        "streaming": st.booleans(),
    },
)
TRAINING = st.fixed_dictionaries({}, optional={"steps": st.integers(1, 9), "batch_size": st.integers(1, 9)})
# Good recipes beside those that only look like one: each of these two kinds hides mistakes from the other.
SECTIONS = st.dictionaries(
    st.sampled_from([*Recipe.model_fields, "modle"]) | st.text(max_size=4), DATA | VALUES, max_size=6
) | st.fixed_dictionaries(
    {"model": st.just({"name": "m"}), "output": st.just({"folder": "f"}), "data": GOOD_DATA},
    optional={"seed": st.integers(0, 9) | VALUES, "training": TRAINING},
)


@settings(max_examples=150)
@given(values=SECTIONS)
def test_any_mapping_is_a_recipe_or_refused(values, accepted):
    try:
        recipe = parse_recipe(values, source="x")
    except RecipeError:
        accepted(False, at_least=0.3)
        return
    accepted(True, at_least=0.3)
    assert parse_recipe(recipe.model_dump(mode="json"), source="x") == recipe


@settings(max_examples=150)
@given(data=DATA | GOOD_DATA)
@example(data={"train": [{"path": "x", "pth": 1}]})
@example(data={"train": {"path": "x"}})
@example(data={"train": "x", "hold_out": float("nan")})
@example(data={"train": "x", "hold_out": float("inf")})
def test_any_data_section_is_read_or_refused(data, accepted):
    try:
        section = parse_recipe({**WHOLE, "data": data}, source="x").data
        sources = section.training_sources + section.held_out_sources
    except QpeftError:
        accepted(False, at_least=0.1)
        return
    accepted(True, at_least=0.1)
    assert sources
    assert section.hold_out is None or section.hold_out < 1 or section.hold_out == int(section.hold_out)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "recipe.yaml"


@settings(max_examples=150)
@given(content=st.binary(max_size=40) | SECTIONS.map(yaml.safe_dump).map(str.encode))
@example(content=b"seed: 2001-99-99")
@example(content=b"[" * 5000)
@example(content=b"? [a]\n: b")
@example(content=b"a: &a [*a]")
@example(content=b"1: 2")
def test_any_file_is_a_recipe_or_refused(path, content, accepted):
    path.write_bytes(content)
    try:
        load_recipe(path)
    except RecipeError:
        accepted(False, at_least=0.1)
        return
    accepted(True, at_least=0.1)


# Options that a recipe has, and any value for them.
SET = st.tuples(
    st.sampled_from(["--seed", "--training.steps", "--data.hold_out", "--output.folder"]),
    st.integers(1, 9).map(str) | st.text(max_size=20),
)


@settings(max_examples=150)
@given(overrides=st.lists(st.text("-.=:[]{}'\"data&*!1e", max_size=8), max_size=3) | SET)
@example(overrides=["--seed", "2001-99-99"])
@example(overrides=["--seed", "[" * 5000])
@example(overrides=["--seed.x", "1"])
@example(overrides=["--", "1"])
def test_any_overrides_are_read_or_refused(path, overrides, accepted):
    path.write_text(yaml.safe_dump(WHOLE), encoding="utf-8")
    try:
        load_recipe(path, overrides)
    except RecipeError:
        accepted(False, at_least=0.05)
        return
    accepted(True, at_least=0.05)

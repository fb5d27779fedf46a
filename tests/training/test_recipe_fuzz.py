"""Whatever a recipe holds, reading it gives a recipe or a RecipeError."""

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
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
SECTIONS = st.dictionaries(
    st.sampled_from([*Recipe.model_fields, "modle"]) | st.text(max_size=4), DATA | VALUES, max_size=6
)
WHOLE = {"model": {"name": "m"}, "output": {"folder": "f"}}


@settings(max_examples=200, deadline=None)
@given(values=SECTIONS)
def test_any_mapping_is_a_recipe_or_refused(values):
    try:
        recipe = parse_recipe(values, source="x")
    except RecipeError:
        return
    assert parse_recipe(recipe.model_dump(mode="json"), source="x") == recipe


@settings(max_examples=200, deadline=None)
@given(data=DATA)
@example(data={"train": [{"path": "x", "pth": 1}]})
@example(data={"train": {"path": "x"}})
@example(data={"train": "x", "hold_out": float("nan")})
@example(data={"train": "x", "hold_out": float("inf")})
def test_any_data_section_is_read_or_refused(data):
    try:
        section = parse_recipe({**WHOLE, "data": data}, source="x").data
        sources = section.training_sources + section.held_out_sources
    except QpeftError:
        return
    assert sources
    assert section.hold_out is None or section.hold_out < 1 or section.hold_out == int(section.hold_out)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "recipe.yaml"


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=40) | SECTIONS.map(yaml.safe_dump).map(str.encode))
@example(content=b"seed: 2001-99-99")
@example(content=b"[" * 5000)
@example(content=b"? [a]\n: b")
@example(content=b"a: &a [*a]")
@example(content=b"1: 2")
def test_any_file_is_a_recipe_or_refused(path, content):
    path.write_bytes(content)
    try:
        load_recipe(path)
    except RecipeError:
        return


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(overrides=st.lists(st.text("-.=:[]{}'\"data&*!1e", max_size=8), max_size=3))
@example(overrides=["--seed", "2001-99-99"])
@example(overrides=["--seed", "[" * 5000])
@example(overrides=["--seed.x", "1"])
@example(overrides=["--", "1"])
def test_any_overrides_are_read_or_refused(path, overrides):
    path.write_text("seed: 3\n", encoding="utf-8")
    with pytest.raises(RecipeError):
        load_recipe(path, overrides)

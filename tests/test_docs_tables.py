"""Tables of options stand in the pages themselves, as the code has them."""

import re
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(path.name for path in DOCS.glob("*.md") if "<!-- table: " in path.read_text(encoding="utf-8"))


@pytest.fixture
def with_tables(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    yield __import__("tables").with_tables
    sys.modules.pop("tables", None)


def test_every_method_and_the_recipe_have_a_table_on_a_page():
    from qpeft.adapters import ADAPTERS

    found = re.findall("<!-- table: (\\w+) -->", "".join((DOCS / page).read_text(encoding="utf-8") for page in PAGES))
    assert sorted(found) == sorted([*ADAPTERS, "recipe", "learning_rates", "methods"])


@pytest.mark.parametrize("page", PAGES)
def test_tables_of_a_page_are_those_of_the_code(page, with_tables):
    text = (DOCS / page).read_text(encoding="utf-8")
    assert with_tables(text) == text, f"docs/{page} is not current; run: python docs/tables.py"


def test_no_two_methods_are_described_alike():
    """A method may be a file or a folder, and neither is described by what it stands in."""
    page = (DOCS / "methods.md").read_text(encoding="utf-8")
    table = page.partition("<!-- table: methods -->")[2].partition("<!--")[0]
    described = [row.split("|")[2] for row in table.strip().splitlines()[2:]]
    assert len(set(described)) == len(described) > 5


def test_a_page_can_be_read_without_building_it():
    """Every key of a recipe with its default and its meaning stands in the repository."""
    from qpeft_cli.keys import recipe_keys

    text = (DOCS / "training.md").read_text(encoding="utf-8")
    for key in recipe_keys():
        if key.section != "adapter":
            assert f"| `{key.path}` |" in text
    assert not any("_generated" in (DOCS / page).read_text(encoding="utf-8") for page in PAGES)

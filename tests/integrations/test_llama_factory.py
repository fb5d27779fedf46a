"""The way from a LLaMA-Factory YAML to a recipe, as docs/integrations.md shows it."""

import io
import json
import re

import pytest
import snippets
import yaml
from rich.console import Console

from qpeft import QthaConfig
from qpeft.training.config import parse_recipe
from qpeft.training.recipe import train
from qpeft.training.sections import Recipe

HEADING = "LLaMA-Factory"


@pytest.mark.slow
def test_the_documented_recipe_trains_on_their_file(tmp_path, monkeypatch, tiny_model):
    monkeypatch.chdir(tmp_path)
    rows = [{"instruction": "Add.", "input": f"What is {n} and 1?", "output": str(n + 1)} for n in range(12)]
    (tmp_path / "my_alpaca.json").write_text(json.dumps(rows), encoding="utf-8")
    (text,) = snippets.blocks(HEADING, "yaml")
    values = yaml.safe_load(text.replace(snippets.MODEL, str(tiny_model)))
    console = Console(width=200, record=True, file=io.StringIO())
    train(parse_recipe(values, source="docs"), console=console)
    record = json.loads((tmp_path / "saves/sft/run.json").read_text(encoding="utf-8"))
    assert record["recipe"]["training"]["epochs"] == 3
    assert "my_alpaca.json, read as alpaca" in console.export_text()
    assert (tmp_path / "saves/sft/adapter_model.safetensors").is_file()


def test_every_key_in_the_table_exists():
    (theirs,) = snippets.blocks(HEADING, "text")
    keys = set(re.findall(r"`((?:model|data|training|output|adapter)\.\w+)`", snippets.section(HEADING)))
    assert len(keys) > 25
    for key in sorted(keys):
        name, _, field = key.partition(".")
        section = Recipe.model_fields[name].annotation
        known = section.model_fields | (QthaConfig.__dataclass_fields__ if name == "adapter" else {})
        assert field in known, key
    for key in yaml.safe_load(theirs):
        assert f"`{key}" in snippets.section(HEADING), f"{key} is in the example and not in the table"

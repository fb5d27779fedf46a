"""Tables of options in the pages of this folder, from the classes that define them.

`python docs/tables.py` writes them again after an option was added or changed; a test says when. They stand in the
pages themselves, so that they can be read wherever the pages can.
"""

import dataclasses
import inspect
import json
import re
import sys
from pathlib import Path

import torch
from peft import PeftConfig
from pydantic_core import PydanticUndefined
from torch import nn

from qpeft.adapters import ADAPTERS
from qpeft.adapters.base import AbstractMatrixModel
from qpeft.adapters.build import count_layers
from qpeft.adapters.learning_rates import LEARNING_RATES, default_learning_rate
from qpeft.training.config import section_of
from qpeft.training.sections import Recipe

HERE = Path(__file__).parent
PLACE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end of table -->\n)", re.DOTALL)


def with_tables(page: str) -> str:
    """The text of a page, with what the code says now at every place for a table."""
    return PLACE.sub(lambda place: f"{place[1]}\n{_table(place[2])}\n{place[3]}", page)


def _table(name: str) -> str:
    tables = {"recipe": recipe_table, "learning_rates": learning_rates_table, "methods": methods_table}
    return tables[name]() if name in tables else adapter_table(ADAPTERS[name][0])


def recipe_table() -> str:
    """Every key of a recipe with its default and its description."""
    rows = ["| key | default | meaning |", "| --- | --- | --- |"]
    for name, field in Recipe.model_fields.items():
        if section := section_of(field.annotation):
            for key, option in section.model_fields.items():
                rows.append(_row(f"{name}.{key}", option.get_default(call_default_factory=True), option.description))
        else:
            rows.append(_row(name, field.default, field.description))
    return "\n".join(rows) + "\n"


def adapter_table(config_class: type[PeftConfig]) -> str:
    """Every option of an adapter of ours with its default and its description, the method's own options first."""
    defaults = config_class()
    of_peft = {field.name for field in dataclasses.fields(PeftConfig)}
    options = [field for field in dataclasses.fields(config_class) if field.name not in of_peft]
    options.sort(key=lambda field: field.name not in config_class.__annotations__)
    rows = [_row(field.name, getattr(defaults, field.name), field.metadata["help"]) for field in options]
    return "\n".join(["| option | default | meaning |", "| --- | --- | --- |", *rows]) + "\n"


def methods_table() -> str:
    """Every method with its formula, its size, whether it merges, and its page."""
    rows = ["| method | what it is | formula | parameters | merges |", "| --- | --- | --- | --- | --- |"]
    for name, (config_class, model_class) in ADAPTERS.items():
        with torch.device("meta"):
            layer = nn.ModuleDict({"layer": nn.Linear(576, 576)})
        # Of one layer, and of what all layers share.
        parameters = sum(kind.parameters for kind in count_layers(layer, config_class(target_modules=["layer"])))
        module = inspect.getmodule(config_class)
        # A method is a file, or a folder whose config.py says what options are, and not what the method is.
        page = sys.modules[module.__package__] if module.__name__.endswith(".config") else module
        what = page.__doc__.partition("\n")[0].rstrip(".")
        formula = next(line.strip() for line in config_class.__doc__.splitlines() if " = " in line).replace("|", "\\|")
        title = f"[{name}]({name}.md)" if (HERE / f"{name}.md").exists() else name
        merges = "yes" if issubclass(model_class, AbstractMatrixModel) else "no"
        rows.append(f"| {title} | {what} | `{formula}` | {parameters:,} | {merges} |")
    return "\n".join(rows) + "\n"


def learning_rates_table() -> str:
    """The peak learning rate of every method that has one of its own, and of all others."""
    rows = ["| adapter.type | learning rate | why |", "| --- | --- | --- |"]
    for name in [*LEARNING_RATES, "any other"]:
        rate = default_learning_rate(name)
        rows.append(f"| {name} | {rate.value:g} | {rate.source} |")
    return "\n".join(rows) + "\n"


def _row(key: str, default: object, description: str | None) -> str:
    # As YAML has them.
    value = json.dumps(default) if default is None or isinstance(default, bool) else default
    shown = "required" if default is PydanticUndefined else f"`{value}`"
    assert description is not None
    return f"| `{key}` | {shown} | {description} |"


if __name__ == "__main__":
    for path in sorted(HERE.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        if (current := with_tables(text)) != text:
            path.write_text(current, encoding="utf-8")
            sys.stdout.write(f"tables written again: {path.name}\n")

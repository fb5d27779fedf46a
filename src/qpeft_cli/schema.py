"""The JSON schema of recipes as a file beside this one, since the classes that it is made from take seconds to import.

`python -m qpeft_cli.schema` writes it again after a recipe or an adapter got a new option; a test tells when to.
"""

from __future__ import annotations

import json
from pathlib import Path

FILE = Path(__file__).with_name("recipe.schema.json")


def stored_schema() -> str:
    """What the file holds."""
    return FILE.read_text(encoding="utf-8")


def current_schema() -> str:
    """What the file should hold."""
    from qpeft.training.schema import recipe_schema  # noqa: PLC0415  (takes seconds to import)

    return json.dumps(recipe_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(current_schema(), encoding="utf-8")

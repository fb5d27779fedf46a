"""JSON schemas of recipes and studies as files beside this one, since the classes behind them take seconds to import.

`python -m qpeft_cli.schema` writes them again after a recipe, study or adapter got a new option; a test says when.
"""

from __future__ import annotations

import json
from pathlib import Path

FILE = Path(__file__).with_name("recipe.schema.json")
STUDY_FILE = Path(__file__).with_name("study.schema.json")


def stored_schema(file: Path = FILE) -> str:
    """What a file holds."""
    return file.read_text(encoding="utf-8")


def current_schema() -> str:
    """What the file of recipes should hold."""
    from qpeft.training.schema import recipe_schema  # noqa: PLC0415  (takes seconds to import)

    return json.dumps(recipe_schema(), indent=2, ensure_ascii=False) + "\n"


def current_study_schema() -> str:
    """What the file of studies should hold."""
    from qpeft.comparison.schema import study_schema  # noqa: PLC0415  (takes seconds to import)

    return json.dumps(study_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(current_schema(), encoding="utf-8")
    STUDY_FILE.write_text(current_study_schema(), encoding="utf-8")

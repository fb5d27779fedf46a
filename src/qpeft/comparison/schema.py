"""The JSON schema of study files, for editors that complete and check YAML."""

from __future__ import annotations

from typing import Any

from qpeft.comparison.study import FROM, Study
from qpeft.training.schema import DIALECT, recipe_schema
from qpeft.training.sections import AdapterSection, Recipe


def study_schema() -> dict[str, Any]:
    """Every key of a study with type, default and description; its recipe's and adapters' keys are those of recipes."""
    study, recipe = Study.model_json_schema(), recipe_schema()
    definitions = recipe.pop("$defs") | study.pop("$defs")
    # Not the plain one of the study: that of recipes knows the options of our own methods.
    definitions[AdapterSection.__name__] = recipe_schema()["$defs"][AdapterSection.__name__]
    replaced = study["properties"]["recipe"]
    sections = {name: value for name, value in recipe["properties"].items() if name not in ("adapter", "output")}
    definitions[Recipe.__name__] = {
        "type": "object",
        "properties": {FROM: {"type": "string", "description": "Recipe file, relative to the study's."}, **sections},
    }
    study["properties"]["recipe"] = {
        "description": replaced["description"],
        "anyOf": [{"type": "string"}, {"$ref": f"#/$defs/{Recipe.__name__}"}],
    }
    return {"$schema": DIALECT, "$defs": definitions, **study}

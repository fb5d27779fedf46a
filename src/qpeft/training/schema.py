"""The JSON schema of recipes, for editors that complete and check YAML."""

from __future__ import annotations

import dataclasses
from typing import Any, get_type_hints

from peft import PeftConfig
from pydantic import TypeAdapter

from qpeft.adapters import ADAPTERS
from qpeft.adapters.build import PRESETS
from qpeft.training.sections import AdapterSection, Recipe

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def recipe_schema() -> dict[str, Any]:
    """Every key of a recipe with type, default and description; unknown keys are refused.

    Options of our own methods stand under `adapter`, chosen by its `type`. Those of PEFT's own methods depend on the
    PEFT that is installed, so they are left open.
    """
    schema = Recipe.model_json_schema()
    adapter = schema["$defs"][AdapterSection.__name__]
    default = adapter["properties"]["type"]["default"]
    adapter["allOf"] = [
        {
            # Without `type` the first condition holds for every method, so the others ask for it.
            "if": {"properties": {"type": {"const": method}}} | ({} if method == default else {"required": ["type"]}),
            "then": {
                "properties": adapter["properties"] | _options(method, config_class),
                "additionalProperties": False,
            },
        }
        for method, (config_class, _) in ADAPTERS.items()
    ]
    return {"$schema": DIALECT, **schema}


def _options(method: str, config_class: type[PeftConfig]) -> dict[str, Any]:
    """The fields of a method's config, and its presets."""
    defaults, types = config_class(), get_type_hints(config_class)
    of_peft = {field.name for field in dataclasses.fields(PeftConfig)}
    options: dict[str, Any] = {}
    if method in PRESETS:
        options["preset"] = {"enum": list(PRESETS[method]), "description": "Other defaults to start from."}
    for field in dataclasses.fields(config_class):
        if field.name in of_peft:
            options[field.name] = {"description": "A field of every PEFT config."}
        else:
            described = {"default": getattr(defaults, field.name), "description": field.metadata["help"]}
            options[field.name] = TypeAdapter(types[field.name]).json_schema() | described
    return options

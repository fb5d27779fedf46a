"""Recipes from YAML files and command lines, with errors that name the nearest key."""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import yaml
from peft import PeftConfig
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from qpeft.adapters import ADAPTERS
from qpeft.adapters.build import PRESETS
from qpeft.errors import RecipeError
from qpeft.training.sections import SOURCE_KINDS, AdapterSection, Recipe

Sections = TypeVar("Sections", bound=BaseModel)


def load_recipe(path: Path, overrides: Iterable[str] = ()) -> Recipe:
    """Return the recipe of a YAML file and command-line overrides.

    Args:
        path: the file.
        overrides: "--section.key", "value" pairs or "--section.key=value"; values are read as YAML.

    Raises:
        RecipeError: the file cannot be read, or a key is unknown or a value out of range; it names the nearest key.
    """
    return parse_recipe(read_values(path, overrides, sections=Recipe), source=str(path))


def read_values(path: Path, overrides: Iterable[str], *, sections: type[BaseModel]) -> dict[str, Any]:
    """Return what a YAML file and command-line overrides hold, not checked yet. Raises: RecipeError.

    Args:
        path: the file.
        overrides: as for `load_recipe`.
        sections: whose keys an error names.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = "is not a text file" if isinstance(error, UnicodeDecodeError) else f"cannot be read: {error.strerror}"
        raise RecipeError(f"The {sections.__name__.lower()} {path} {reason}.") from error
    values = _read_yaml(text, str(path)) or {}
    if not isinstance(values, dict):
        raise RecipeError(
            f"{path} must hold keys ({', '.join(sections.model_fields)}) with their values, and holds {_shown(values)}."
        )
    _apply(overrides, values)
    return values


def parse_recipe(values: Mapping[str, Any], *, source: str) -> Recipe:
    """Return the recipe of nested mappings; `source` says in errors where they came from. Raises: RecipeError."""
    return parse(Recipe, values, source=source)


def parse(sections: type[Sections], values: Mapping[str, Any], *, source: str) -> Sections:
    """Return nested mappings as sections of a kind. Raises: RecipeError.

    Args:
        sections: a recipe's, or a study's.
        values: what was read.
        source: where they came from, for errors.
    """
    try:
        return sections.model_validate(values)
    except ValidationError as error:
        raise RecipeError(f"{source}: " + " ".join(_explain(error.errors(), sections))) from error


def override(recipe: Recipe, overrides: Iterable[str]) -> Recipe:
    """Return the recipe with other values, given as for `load_recipe`. Raises: RecipeError."""
    values = recipe.model_dump(mode="json")
    _apply(overrides, values)
    return parse_recipe(values, source="command line")


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-2 is a number, as everybody who writes a learning rate expects."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _read_yaml(text: str, source: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RecipeError(f"{source} is not YAML: {' '.join(str(error).split())}") from error


def _apply(overrides: Iterable[str], values: dict[str, Any]) -> None:
    """Set what command-line arguments say in nested mappings."""
    remaining = iter(overrides)
    for argument in remaining:
        if not argument.startswith("--"):
            raise RecipeError(f"Cannot read {argument!r}: overrides are written --section.key value.")
        key, equals, value = argument[2:].partition("=")
        if not equals:
            following = next(remaining, None)
            if following is None:
                raise RecipeError(f"--{key} has no value: overrides are written --section.key value.")
            value = following
        read = _read_yaml(value, f"The value of --{key}")
        *sections, last = key.split(".")
        place = values
        for name in sections:
            # A section that is left out, as run folders write it, is null.
            inner = place[name] = {} if place.get(name) is None else place[name]
            if not isinstance(inner, dict):
                shown = _shown(inner)
                raise RecipeError(f"--{key}: {name!r} is {shown} here, and has no keys; set --{name} as a whole.")
            place = inner
        place[last] = read


NEEDED = {
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float", "int_parsing_size"), "must be a whole number"),
    **dict.fromkeys(("float_parsing", "float_type"), "must be a number"),
    **dict.fromkeys(("bool_parsing", "bool_type"), "must be true or false"),
    "finite_number": "must be a finite number",
    "string_type": "must be a text",
    "invalid_key": "must be a text, as every key is",
    "list_type": "must be a list",
    "dict_type": "must hold keys with values",
    "literal_error": "must be {expected}",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be {ge} or more",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be {le} or less",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have {max_length} entries at most",
}
"""What a value of a key must be, by pydantic's types of errors, whose own words are those of a programmer."""


def _explain(errors: Iterable[ErrorDetails], root: type[BaseModel]) -> list[str]:
    """Return a sentence for every key that is wrong."""
    needed: dict[str, list[str]] = {}
    given: dict[str, str] = {}
    found = []
    for details in errors:
        # Where a value may be of several kinds, pydantic names them as "literal['auto','none']".
        path = [str(part) for part in details["loc"] if part not in SOURCE_KINDS and "[" not in str(part)]
        name = ".".join(path)
        if details["type"] == "extra_forbidden":
            # An unknown key may itself look like one of pydantic's kinds.
            path = [*path, str(details["loc"][-1])] if "[" in str(details["loc"][-1]) else path
            known = _keys(path[:-1], root)
            near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
            hint = f"did you mean {'.'.join([*path[:-1], near[0]])!r}?" if near else f"known: {', '.join(known)}."
            found.append(f"Unknown key {'.'.join(path)!r}; {hint}")
        elif details["type"] == "missing":
            found.append(f"{name!r} is missing.")
        elif details["type"] == "value_error":
            # What sections say of themselves names the keys that are at odds; all their others are no news.
            reason = details["msg"].removeprefix("Value error, ")
            got = "" if isinstance(details["input"], dict) else f"; got {_shown(details['input'])}"
            found.append(f"{name!r}: {reason}{got}." if name else f"{reason}.")
        else:
            needed.setdefault(name, []).append(_needed(details, path, root))
            given[name] = _shown(details["input"])
    # A value that may be of several kinds has an error for each of them, of which one sentence is made.
    for name, kinds in needed.items():
        first, *others = dict.fromkeys(kinds)
        either = "".join(f", or {other.removeprefix('must ')}" for other in others)
        found.append(f"{name!r} {first}{either}; got {given[name]}." if name else f"It {first}; got {given[name]}.")
    return found


def _needed(details: ErrorDetails, path: list[str], root: type[BaseModel]) -> str:
    kind, got = details["type"], details["input"]
    if kind in ("model_type", "model_attributes_type"):
        return f"must be a section with keys of its own, such as {', '.join(_keys(path, root)[:3])}"
    if kind == "list_type" and SOURCE_KINDS[2] in details["loc"]:
        hint = "; one entry with options is a list of one, [{path: ...}]" if isinstance(got, dict) else ""
        return f"must be a name or a list{hint}"
    if kind == "too_short" and not got:
        return "must not be empty"
    # pydantic gives the limits of fractions as floats, and "less than 1" reads better than "less than 1.0".
    if kind in NEEDED:
        limits = details.get("ctx", {}).items()
        return NEEDED[kind].format(**{name: f"{limit:g}" if type(limit) is float else limit for name, limit in limits})
    message = details["msg"]
    return f"is not right: {message[0].lower()}{message[1:]}"


def _shown(value: Any) -> str:
    """Return a value as YAML would have it, in 80 characters at most."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (TypeError, ValueError, RecursionError):
        text = repr(value)  # such as a date for a key, or a list that holds itself
    return text if len(text) <= 80 else text[:77] + "..."


def _keys(path: list[str], root: type[BaseModel]) -> list[str]:
    """Return the names of the keys of a section, or of the sections themselves for an empty path."""
    section = root
    for name in path:
        # A number is the place in a list of sections, which all have the same keys.
        if not name.isdigit():
            found = section_of(section.model_fields[name].annotation)
            assert found is not None, "only sections have keys of their own"
            section = found
    return list(section.model_fields)


def section_of(annotation: Any) -> type[BaseModel] | None:
    """Return the section that a field holds, also one that may be left out or in a list; None for a plain value."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := section_of(inner))), None)


DIALECT = "https://json-schema.org/draft/2020-12/schema"


def recipe_schema() -> dict[str, Any]:
    """Return the JSON schema of recipes: every key with type, default and description; unknown keys are refused.

    Options of our own methods stand under `adapter`, chosen by its `type`. Those of PEFT's own methods depend on the
    PEFT that is installed, so they are left open.
    """
    schema = Recipe.model_json_schema()
    adapter = schema["$defs"][AdapterSection.__name__]
    default = adapter["properties"]["type"]["default"]
    adapter["allOf"], of_peft = [], {field.name for field in dataclasses.fields(PeftConfig)}
    for method, (config_class, _) in ADAPTERS.items():
        defaults, types, options = (
            config_class(),
            get_type_hints(config_class, include_extras=True),
            dict(adapter["properties"]),
        )
        if method in PRESETS:
            options["preset"] = {"enum": list(PRESETS[method]), "description": "Other defaults to start from."}
        for field in dataclasses.fields(config_class):
            if field.name in of_peft:
                options[field.name] = {"description": "A field of every PEFT config."}
            else:
                described = {"default": getattr(defaults, field.name), "description": field.metadata["help"]}
                options[field.name] = TypeAdapter(types[field.name]).json_schema() | described
        # Without `type` the first condition holds for every method, so the others ask for it.
        condition = {"properties": {"type": {"const": method}}} | ({} if method == default else {"required": ["type"]})
        adapter["allOf"].append({"if": condition, "then": {"properties": options, "additionalProperties": False}})
    return {"$schema": DIALECT, **schema}

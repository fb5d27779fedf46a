"""Recipes from YAML files and command lines, with errors that name the nearest key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from qpeft.errors import RecipeError
from qpeft.training.sections import SOURCE_KINDS, Recipe


def load_recipe(path: Path, overrides: Iterable[str] = ()) -> Recipe:
    """A recipe from a YAML file and command-line overrides.

    Args:
        path: the file.
        overrides: "--section.key", "value" pairs or "--section.key=value"; values are read as YAML.

    Raises:
        RecipeError: the file cannot be read, or a key is unknown or a value out of range; it names the nearest key.
    """
    return parse_recipe(read_values(path, overrides, sections=Recipe), source=str(path))


def read_values(path: Path, overrides: Iterable[str], *, sections: type[BaseModel]) -> dict[str, Any]:
    """What a YAML file and command-line overrides hold, not checked yet. Raises: RecipeError, naming `sections`' keys.

    `overrides` are given as for `load_recipe`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = "is no text file" if isinstance(error, UnicodeDecodeError) else f"cannot be read: {error.strerror}"
        raise RecipeError(f"The {sections.__name__.lower()} {path} {reason}.") from error
    values = _read_yaml(text, str(path)) or {}
    if not isinstance(values, dict):
        raise RecipeError(
            f"{path} must hold sections ({', '.join(sections.model_fields)}), not a {type(values).__name__}."
        )
    for key, value in _read_overrides(overrides):
        _set(values, key, value)
    return values


def parse_recipe(values: Mapping[str, Any], *, source: str) -> Recipe:
    """A recipe from nested mappings; `source` says in errors where they came from. Raises: RecipeError."""
    return parse(Recipe, values, source=source)


Sections = TypeVar("Sections", bound=BaseModel)


def parse(sections: type[Sections], values: Mapping[str, Any], *, source: str) -> Sections:
    """Nested mappings as `sections`, with errors as those of `parse_recipe`. Raises: RecipeError."""
    try:
        return sections.model_validate(values)
    except ValidationError as error:
        problems = [_explain(details, sections) for details in error.errors()]
        raise RecipeError(f"{source}: " + " ".join(problems)) from error


def override(recipe: Recipe, overrides: Iterable[str]) -> Recipe:
    """The recipe with other values, given as for `load_recipe`. Raises: RecipeError."""
    values = recipe.model_dump(mode="json")
    for key, value in _read_overrides(overrides):
        _set(values, key, value)
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


def _read_overrides(arguments: Iterable[str]) -> Iterable[tuple[str, Any]]:
    remaining = iter(arguments)
    for argument in remaining:
        if not argument.startswith("--"):
            raise RecipeError(f"Cannot read {argument!r}: overrides are written --section.key value.")
        key, equals, value = argument[2:].partition("=")
        if not equals:
            following = next(remaining, None)
            if following is None:
                raise RecipeError(f"--{key} has no value: overrides are written --section.key value.")
            value = following
        yield key, _read_yaml(value, f"The value of --{key}")


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for name in sections:
        # A section that is left out, as run folders write it, is null.
        inner = values[name] = {} if values.get(name) is None else values[name]
        if not isinstance(inner, dict):
            raise RecipeError(f"--{key}: {name!r} holds {inner!r} and no keys.")
        values = inner
    values[last] = value


def _explain(details: ErrorDetails, root: type[BaseModel]) -> str:
    # Where a value may be of several kinds, pydantic names them as "literal['auto','none']".
    path = [str(part) for part in details["loc"] if part not in SOURCE_KINDS and "[" not in str(part)]
    message = details["msg"].removeprefix("Value error, ")
    if not path:
        return f"{message}."
    name = ".".join(path)
    if details["type"] == "extra_forbidden":
        known = _keys(path[:-1], root)
        near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
        hint = f"did you mean {'.'.join([*path[:-1], near[0]])!r}?" if near else f"known: {', '.join(known)}."
        return f"Unknown key {name!r}; {hint}"
    if details["type"] == "missing":
        return f"{name!r} is missing."
    got = repr(details["input"])
    return f"{name!r}: {message[0].lower()}{message[1:]}; got {got if len(got) < 80 else got[:77] + '...'}."


def _keys(path: list[str], root: type[BaseModel]) -> list[str]:
    """Names of the keys of a section, or of the sections themselves for an empty path."""
    section = root
    for name in path:
        if not name.isdigit():
            found = section_of(section.model_fields[name].annotation)
            assert found is not None, "only sections have keys of their own"
            section = found
    return list(section.model_fields)


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds, also one that may be left out or in a list; None for a plain value."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := section_of(inner))), None)

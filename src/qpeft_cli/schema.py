"""JSON schemas of recipes and studies as files beside this one, since the classes behind them take seconds to import.

What `--help` says of their keys is read from these files. `python -m qpeft_cli.schema` writes them again after a
recipe, study or adapter got a new option; a test says when.
"""

from __future__ import annotations

import json
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

FILE = Path(__file__).with_name("recipe.schema.json")
STUDY_FILE = Path(__file__).with_name("study.schema.json")
OF_PEFT = "A field of every PEFT config."
"""What a schema says of fields that a method of ours has from PEFT, and that are not listed."""

MOST_USED = (
    "model.name", "model.dtype",
    "data.train", "data.eval", "data.hold_out", "data.format", "data.prompt", "data.response", "data.max_length",
    "data.drop_longer",
    "adapter.type", "adapter.preset", "adapter.rank", "adapter.target_modules",
    "training.steps", "training.epochs", "training.batch_size", "training.gradient_accumulation",
    "training.learning_rate", "training.log_every", "training.eval_every", "training.keep_best",
    "training.checkpoint_every",
    "evaluation.task", "evaluation.items", "evaluation.max_new_tokens",
    "device.name", "device.shots", "device.gradient", "device.max_circuits",
    "output.folder",
    "seed",
)  # fmt: skip
"""Keys of a recipe that `--help` names; `--keys` names all."""
WIDTH, NAME_WIDTH = 78, 24


@dataclass(frozen=True)
class Key:
    """A key of a file.

    `section`: where it stands, empty for the file itself. `default`: as JSON, None where there is none to tell.
    """

    section: str
    name: str
    description: str
    default: str | None

    @property
    def path(self) -> str:
        """As it is written after a command, such as training.steps."""
        return f"{self.section}.{self.name}" if self.section else self.name


def recipe_keys() -> list[Key]:
    """All keys of a recipe, in its order; below `adapter` those of the default method."""
    return _keys(json.loads(stored_schema(FILE)))


def keys_of(kind: Literal["recipe", "study"], *, in_full: bool = False) -> str:
    """Keys of a file as text: those that are used most, a line each, or all, with all that they mean."""
    schema = json.loads(stored_schema(FILE if kind == "recipe" else STUDY_FILE))
    keys = [key for key in _keys(schema) if in_full or kind == "study" or key.path in MOST_USED]
    lines, shown = [], ""
    for key in keys:
        if key.section != shown:
            section = _section(schema["properties"][key.section], schema)
            assert section is not None, "a section has been found there"
            lines.append(
                textwrap.shorten(f"{key.section}: {_first_sentence(section['description'])}", WIDTH, placeholder=" ...")
            )
            shown = key.section
        default = "" if key.default in (None, "null") else f" [{key.default}]"
        indent = f"  {'  ' if key.section else ''}{key.name}".ljust(2 + NAME_WIDTH)
        if in_full:
            lines += textwrap.wrap(
                key.description + default, WIDTH, initial_indent=f"{indent} ", subsequent_indent=" " * (NAME_WIDTH + 3),
                break_long_words=False, break_on_hyphens=False,
            )  # fmt: skip
        else:
            room = WIDTH - len(indent) - 1 - len(default)
            lines.append(
                f"{indent} {textwrap.shorten(_first_sentence(key.description), room, placeholder=' ...')}{default}"
            )
    return "\n".join(lines)


def _first_sentence(text: str) -> str:
    return text.partition(". ")[0].removesuffix(".")


def _keys(schema: dict[str, Any]) -> list[Key]:
    """Keys of a file and of its sections, those of no section first."""
    own, inner = [], []
    for name, held in schema["properties"].items():
        if (section := _section(held, schema)) is None:
            own.append(_key("", name, held))
            continue
        properties = section["allOf"][0]["then"]["properties"] if "allOf" in section else section["properties"]
        inner += [_key(name, key, option) for key, option in properties.items() if option.get("description") != OF_PEFT]
    return own + inner


def _section(held: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any] | None:
    """The section that a key holds, also one that may be left out; None for a value, and for what may be a value."""
    for kind in (held, *held.get("anyOf", ())):
        if "$ref" in kind and not any(other.get("type") == "string" for other in held.get("anyOf", ())):
            found: dict[str, Any] = schema["$defs"][kind["$ref"].rpartition("/")[2]]
            return found
    return None


def _key(section: str, name: str, option: dict[str, Any]) -> Key:
    default = json.dumps(option["default"], ensure_ascii=False) if "default" in option else None
    return Key(section, name, str(option.get("description", "")), default)


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

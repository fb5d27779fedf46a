"""Keys of recipes and studies for `--help`, read from the source of the classes that check them.

Importing those classes brings torch and takes seconds, and help should take none. What is read are plain fields:
`name: type = Field(default, description="...")`, and `option(default, "...")` of adapters; and the rows of `TASKS`.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import textwrap
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Literal

ADAPTER_SOURCES = (
    ("adapters/qtha/config.py", "QthaConfig"),
    ("adapters/base/config.py", "RankedConfig", "AdapterConfig"),
)
"""Files with the options of the default method, and the classes in them."""

MOST_USED = (
    "model.name", "model.dtype",
    "data.train", "data.eval", "data.hold_out", "data.format", "data.prompt", "data.response", "data.max_length",
    "data.drop_longer",
    "adapter.type", "adapter.preset", "adapter.rank", "adapter.target_modules",
    "training.steps", "training.epochs", "training.batch_size", "training.gradient_accumulation",
    "training.method", "training.learning_rate", "training.log_every", "training.eval_every", "training.keep_best",
    "training.checkpoint_every",
    "evaluation.task", "evaluation.items", "evaluation.max_new_tokens",
    "grpo.reward", "grpo.num_generations", "grpo.max_completion_length",
    "device.name", "device.shots", "device.gradient", "device.max_circuits",
    "output.folder",
    "seed",
)  # fmt: skip
"""Keys of a recipe that `--help` names; `--keys` names all."""
WIDTH, NAME_WIDTH = 78, 24


@dataclass(frozen=True)
class Key:
    """A key of a file.

    `section`: where it stands, empty for the file itself. `about`: the first line on that section. `default`: as JSON,
    None where there is none to tell.
    """

    section: str
    about: str
    name: str
    description: str
    default: str | None

    @property
    def path(self) -> str:
        """As it is written after a command, such as training.steps."""
        return f"{self.section}.{self.name}" if self.section else self.name


def recipe_keys() -> list[Key]:
    """Return all keys of a recipe, in its order; below `adapter` those of the default method."""
    keys = _keys("training/sections.py", "Recipe")
    about = next(key.about for key in keys if key.section == "adapter")
    options = [Key("adapter", about, "preset", "Other defaults to start from.", None)]
    for file, *names in ADAPTER_SOURCES:
        classes = {node.name: node for node in _source(file).body if isinstance(node, ast.ClassDef)}
        options += [Key("adapter", about, *found) for name in names for found in _fields(classes[name])]
    # Behind the section's own keys, which stand before those of any method.
    last = max(place for place, key in enumerate(keys) if key.section == "adapter")
    return [*keys[: last + 1], *options, *keys[last + 1 :]]


def task_names() -> list[str]:
    """Return the names of all tasks that answers can be graded by, those of other packages included."""
    for node in _source("evaluation/tasks/__init__.py").body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "TASKS" and isinstance(node.value, ast.Dict):
            names = [ast.literal_eval(key) for key in node.value.keys if key is not None]
            return [*names, *(entry.name for entry in entry_points(group="qpeft.tasks"))]
    raise AssertionError("tasks stand in a table")


def keys_of(kind: Literal["recipe", "study"], *, in_full: bool = False) -> str:
    """Return keys of a file as text: those that are used most, a line each, or all, with all that they mean."""
    keys = recipe_keys() if kind == "recipe" else _keys("comparison/study.py", "Study")
    lines, shown = [], ""
    for key in keys:
        if not in_full and kind == "recipe" and key.path not in MOST_USED:
            continue
        if key.section != shown:
            about = f"{key.section}: {_first_sentence(key.about)}"
            lines.append(textwrap.shorten(about, WIDTH, placeholder=" ..."))
            shown = key.section
        # "null" tells less than the description, which says what None means.
        default = "" if key.default in (None, "null") else f" [{key.default}]"
        indent = f"  {'  ' if key.section else ''}{key.name}".ljust(2 + NAME_WIDTH)
        if in_full:
            lines += textwrap.wrap(
                key.description + default, WIDTH, initial_indent=f"{indent} ", subsequent_indent=" " * (NAME_WIDTH + 3),
                break_long_words=False, break_on_hyphens=False,
            )  # fmt: skip
        else:
            room = WIDTH - len(indent) - 1 - len(default)
            short = textwrap.shorten(_first_sentence(key.description), room, placeholder=" ...")
            lines.append(f"{indent} {short}{default}")
    return "\n".join(lines)


def _first_sentence(text: str) -> str:
    return text.partition(". ")[0].removesuffix(".")


def _keys(file: str, root: str) -> list[Key]:
    """Return keys of a class and of its sections, which are classes of the same file; those of no section first."""
    classes = {node.name: node for node in _source(file).body if isinstance(node, ast.ClassDef)}
    own, inner = [], []
    for field in (node for node in classes[root].body if isinstance(node, ast.AnnAssign)):
        # `DeviceSection | None` is a section as well.
        named = field.annotation.left if isinstance(field.annotation, ast.BinOp) else field.annotation
        section = classes.get(named.id) if isinstance(named, ast.Name) else None
        if section is None:
            own += [Key("", "", *found) for found in _fields(ast.Module([field], []))]
        else:
            about = (ast.get_docstring(section) or "").partition("\n")[0]
            inner += [Key(ast.unparse(field.target), about, *found) for found in _fields(section)]
    return own + inner


def _source(file: str) -> ast.Module:
    spec = importlib.util.find_spec("qpeft")  # finds it and does not import it
    assert spec is not None, "qpeft stands beside qpeft_cli"
    assert spec.origin is not None, "qpeft is a package of files"
    return ast.parse((Path(spec.origin).parent / file).read_text(encoding="utf-8"))


def _fields(found: ast.ClassDef | ast.Module) -> list[tuple[str, str, str | None]]:
    """Return name, description and default of the fields of a class."""
    fields = []
    for node in found.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.value, ast.Call):
            continue
        positional, named = node.value.args, {one.arg: one.value for one in node.value.keywords}
        described = named.get("description") or (positional[1] if len(positional) > 1 else None)
        # Dataclasses of PEFT configs keep their help under metadata.
        if described is None and isinstance(metadata := named.get("metadata"), ast.Dict):
            described = metadata.values[0]
        if isinstance(described, ast.Constant):
            default = positional[0] if positional else named.get("default")
            # A name stands for a value that only the module itself knows.
            value = json.dumps(default.value, ensure_ascii=False) if isinstance(default, ast.Constant) else None
            fields.append((ast.unparse(node.target), str(described.value), value))
    return fields

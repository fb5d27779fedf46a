"""Tables of options in Markdown, from the classes that define them."""

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from qpeft.training.config import Recipe


def recipe_table() -> str:
    """Every key of a recipe with its default and its description."""
    rows = ["| key | default | meaning |", "| --- | --- | --- |"]
    for name, field in Recipe.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            for key, option in section.model_fields.items():
                rows.append(_row(f"{name}.{key}", option.default, option.description))
        else:
            rows.append(_row(name, field.default, field.description))
    return "\n".join(rows) + "\n"


def _row(key: str, default: object, description: str | None) -> str:
    shown = "required" if default is PydanticUndefined else f"`{'null' if default is None else default}`"
    assert description is not None
    return f"| `{key}` | {shown} | {description} |"

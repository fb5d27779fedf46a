"""Writes the table of options into docs/qtha.md, from the descriptions that stand beside the fields of `QthaConfig`.

python docs/adapter_options.py
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from qpeft import QthaConfig

PAGE = Path(__file__).with_name("qtha.md")
BEGIN, END = "<!-- options: begin -->", "<!-- options: end -->"


def options_table() -> str:
    """The options as a Markdown table: name, default, description."""
    fields = [field for field in dataclasses.fields(QthaConfig) if "help" in field.metadata]
    defaults = QthaConfig()
    rows = [
        f"| `{field.name}` | `{getattr(defaults, field.name)!r}` | {field.metadata['help']} |"
        for field in fields
        if field.name in QthaConfig.__annotations__
    ]
    return "\n".join(["| option | default | |", "| --- | --- | --- |", *rows])


def with_table(page: str) -> str:
    """The page with the table between its two marks."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{options_table()}\n\n{END}{tail}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

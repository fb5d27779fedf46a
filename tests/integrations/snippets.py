"""The code and YAML blocks of a documentation page, by the heading they stand under."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs/integrations.md"
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""The model that the page names; tests put the tiny one in its place."""


def section(heading):
    """What stands under a heading, up to the next."""
    _, found, rest = PAGE.read_text(encoding="utf-8").partition(f"\n## {heading}\n")
    assert found, f"{PAGE.name} has no section {heading!r}"
    return rest.partition("\n## ")[0]


def blocks(heading, language):
    """The text of every block of a language in the section of that heading, in order."""
    texts = re.findall(rf"^```{language}\n(.*?)^```$", section(heading), flags=re.DOTALL | re.MULTILINE)
    assert texts, f"the section {heading!r} of {PAGE.name} has no {language} block"
    return texts


def run(heading, replace):
    """Execute the Python blocks of a section as one program; the names that it leaves behind."""
    program = "\n".join(blocks(heading, "python"))
    for old, new in replace.items():
        assert old in program, f"the section {heading!r} of {PAGE.name} has no {old!r}"
        program = program.replace(old, new)
    namespace = {}
    exec(compile(program, f"{PAGE.name}: {heading}", "exec"), namespace)
    return namespace

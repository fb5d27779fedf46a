"""Every Python block of the pages for users of PennyLane and of Qiskit runs, top to bottom, as one program."""

import re
from pathlib import Path

import pytest
import torch

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", ["pennylane.md", "qiskit.md"])
def test_the_examples_of_a_page_run(page):
    blocks = re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 2
    torch.manual_seed(0)
    exec(compile("\n".join(blocks), page, "exec"), {})

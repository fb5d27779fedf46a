"""The page on QTHA says what the code says."""

import importlib.util
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_table_of_options_is_that_of_the_config():
    spec = importlib.util.spec_from_file_location("adapter_options", DOCS / "adapter_options.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    page = (DOCS / "qtha.md").read_text(encoding="utf-8")
    assert script.with_table(page) == page, "run: python docs/adapter_options.py"

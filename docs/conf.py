"""Sphinx configuration. `make docs` builds into docs/_build/html."""

project = "qpeft"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "_generated"]  # the second is what earlier versions wrote
autodoc_typehints = "description"

suppress_warnings = ["myst.header"]


def _write_reports() -> None:
    """Write the report of every study in `evidence` beside its records, where pages link to it, unless it is newer."""
    from pathlib import Path

    import qpeft.comparison
    from qpeft.comparison.records import read_records
    from qpeft.comparison.report import write_page

    code = [file for kind in ("*.py", "*.j2") for file in Path(qpeft.comparison.__file__).parent.rglob(kind)]
    for records in (Path(__file__).parent / "evidence").glob("*.json"):
        page = records.with_suffix(".html")
        if not page.exists() or page.stat().st_mtime < max(file.stat().st_mtime for file in (records, *code)):
            write_page(*read_records(records), page)


_write_reports()

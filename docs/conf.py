"""Sphinx configuration. `make docs` builds into docs/_build/html."""

project = "qpeft"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
autodoc_typehints = "description"

suppress_warnings = ["myst.header"]

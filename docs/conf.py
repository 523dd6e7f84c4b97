"""How the documentation is built: MyST and Sphinx, warnings are errors (`make docs`)."""

from __future__ import annotations

from importlib.metadata import version as installed

project = "Remora"
author = "The Remora developers"
copyright = f"2025, {author}"
release = version = installed("remora")

extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
nitpicky = True

html_theme = "furo"
html_title = "Remora"
html_show_sphinx = False

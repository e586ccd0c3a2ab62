"""How Sphinx builds these pages: `sphinx-build -W docs FOLDER` with the extra `docs` installed."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_extensions"), str(HERE.parent)]

import rareal  # noqa: E402  (the path comes first)

project = "rareal"
author = "The rareal developers"
project_copyright = author
version = release = rareal.__version__

extensions = ["myst_parser", "sphinx.ext.mathjax", "options", "commands", "lammps"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nitpicky = True

html_theme = "furo"
html_title = f"rareal {version}"
html_copy_source = False
html_static_path: list[str] = []

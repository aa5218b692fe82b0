"""How `make docs` builds the documentation."""

import sys
from pathlib import Path

from agola_core import __version__

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "agola_core"
author = "the agola_core authors"
copyright = author  # noqa: A001 - Sphinx's name
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.intersphinx",
    "sphinx_click",
    "sphinx_copybutton",
    "http_routes",
    "public_names",
]
exclude_patterns = ["_build", "examples"]
html_theme = "furo"
html_title = f"agola_core {version}"
html_static_path: list[str] = []
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_use_ivar = True
intersphinx_mapping: dict[str, tuple[str, None]] = {}
nitpicky = False
suppress_warnings = ["ref.python"]

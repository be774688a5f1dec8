"""The site: `make docs`."""

from __future__ import annotations

import re
from typing import Any

from vertexflow import __version__

project, author, copyright = "vertexflow", "the vertexflow authors", "the vertexflow authors"
version = release = __version__

extensions = [
    "myst_nb",
    "sphinx_design",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx.ext.doctest",
    "sphinx_copybutton",
]
exclude_patterns = ["plots", "_build"]
html_theme = "pydata_sphinx_theme"
html_title = "vertexflow"
html_theme_options = {"show_prev_next": True, "navigation_with_keys": False, "secondary_sidebar_items": ["page-toc"]}
html_show_sphinx = False
html_copy_source = False

myst_enable_extensions = ["colon_fence", "dollarmath", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "cache"  # a page is executed again when it has changed
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_number_source_lines = False
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_inherit_docstrings = False
default_role = "code"  # docstrings write `x` for code
python_use_unqualified_type_names = True
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True
doctest_global_setup = """
import numpy as np, torch, vertexflow as vf
from torch import nn
"""
# Pages are read in the repository as well, where these lead to files that are no pages.
suppress_warnings = ["myst.xref_missing", "misc.highlighting_failure", "mystnb.unknown_mime_type", "myst-nb.lexer"]
linkcheck_anchors = False


_SECTION = re.compile(r"(Args|Attributes|Example|Examples|Raises|Returns|Yields):")
_CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)(?=(\w?))")


def _as_restructured_text(app: object, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Docstrings are Markdown with Google's sections: what Napoleon, which comes next, does not know is written anew."""
    text, in_section, literal = [], False, False
    for line in lines:
        is_blank, is_indented = not line.strip(), line.startswith("    ")
        if not is_blank and not is_indented:
            in_section = _SECTION.fullmatch(line) is not None
        is_literal = not in_section and (is_indented or line.startswith("|"))
        if is_literal and not literal and not is_blank:
            text += ["", "::", ""]  # tables, formulas and lists of code as they are
        elif literal and not is_literal and not is_blank:
            text.append("")
        literal = is_literal or (literal and is_blank)
        shown = line if literal else _CODE.sub(lambda code: f"``{code[1]}``" + ("\\ " if code[2] else ""), line)
        text.append(f"    {shown}" if is_literal and not is_indented else shown)
    lines[:] = text


def setup(app: Any) -> None:
    """Sphinx calls this."""
    app.connect("autodoc-process-docstring", _as_restructured_text, priority=400)

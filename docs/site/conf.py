"""Sphinx's settings for `make site`. Nothing is executed, and nothing is loaded from another host."""

import re

project, author, copyright = "Where does a Video LLM get its answer from?", "", ""
extensions = ["myst_nb", "sphinx.ext.autodoc"]
html_theme, html_title = "sphinx_book_theme", "Flow in Video LLMs"
html_theme_options = {"show_toc_level": 2, "use_download_button": False, "use_fullscreen_button": False}
html_theme_options |= {"navbar_persistent": []}  # the search stands in the sidebar
html_context = {"default_mode": "auto"}  # light or dark as the reader's system has it
html_static_path, html_css_files, html_js_files = ["static"], ["site.css"], ["site.js"]
html_show_sphinx = html_show_copyright = html_show_sourcelink = html_copy_source = False
html_extra_path = ["../../build/site/extra"]
nb_execution_mode, nb_code_prompt_show, nb_code_prompt_hide = "off", "Show the code", "Hide the code"
nb_render_markdown_format = "myst"
myst_heading_anchors = 3
default_role = "code"  # docstrings put names between single backticks
autodoc_member_order, autodoc_typehints = "bysource", "signature"
autodoc_preserve_defaults = True  # a default is shown as written, not with a path of this machine
toc_object_entries = False
suppress_warnings = ["toc.not_included"]  # what a guide links to may stand outside the tree


def plain(app, what, name, obj, options, lines):
    """Docstrings are prose: outside backticks, signs that mean something in reStructuredText stand for themselves."""
    for i, line in enumerate(lines):
        parts = re.split(r"(`[^`]*`)", line)
        parts[::2] = [re.sub(r"([*|_\\])", r"\\\1", part) for part in parts[::2]]
        lines[i] = "".join(parts)


def setup(app):
    """Sphinx calls this."""
    app.connect("autodoc-process-docstring", plain)

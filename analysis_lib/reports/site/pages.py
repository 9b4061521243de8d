"""The sources of the site's pages: Markdown and notebooks, generated or taken over from the repository.

The landing page is the top of README.md. Executed notebooks are taken as they are; what the reader of a page needs is
added to a copy: folded code, alternative texts where Sphinx looks for them, and links from a figure to its files."""

import re
from collections.abc import Iterator
from pathlib import Path

import nbformat

from analysis_lib import paths
from analysis_lib.errors import StudyError
from analysis_lib.figures.style import VERDICTS
from analysis_lib.reports.readme import findings_block

MARKS = {"reproduced": "✓", "undecided": "?", "not reproduced": "✗"}
GUIDES = ("new_model", "families", "hybrid", "open_ended", "architecture")
TREE = """
```{toctree}
:hidden:
:caption: CAPTION
PAGES
```
"""


def landing(sections: dict[str, list[str]]) -> str:
    """Markdown: README.md up to its second heading, its table made anew from the stored claims, and the tree of all
    pages, which are named by section. StudyError if README.md lacks the marks of its findings."""
    parts = re.split(r"<!-- (?:end of )?findings.*-->\n", (paths.ROOT / "README.md").read_text(encoding="utf-8"))
    if len(parts) != 3:
        raise StudyError("README.md must hold the marks of the findings once each; see analysis_lib/reports/readme.py")
    table, rest = findings_block(), parts[2].partition("\n## ")[0]
    for verdict, colour in VERDICTS.items():
        mark = f'<span style="color:{colour}">{MARKS[verdict]}</span>'
        table = table.replace(f"**{verdict}**", f"{mark} **{verdict}**")
    trees = [TREE.replace("CAPTION", name).replace("PAGES", "\n".join(of)) for name, of in sections.items()]
    look = "\n**[Explore the curves](explorer.md)**: every edge set, task and layer, with the questions behind them.\n"
    return parts[0] + table + look + rest + "\n" + "".join(trees)


def notebook(file: Path) -> str:
    """The text of an executed notebook for its page. A figure's cell is known by its `figures.save(fig, "NAME", …)`,
    the picture's alternative text is what `save` stored with it."""
    book = nbformat.read(file, as_version=4)
    figures = Path("../../../figures") / file.parent.name  # from a page in notebooks/executed/<model>
    for cell in [cell for cell in book.cells if cell.cell_type == "code"]:
        cell.metadata["tags"] = [*cell.metadata.get("tags", []), "hide-input"]
        saved = re.search(r'figures\.save\(\w+, "(\w+)"', cell.source)
        for output in cell.get("outputs", []):
            about = [more for kind, more in output.get("metadata", {}).items() if kind.startswith("image/")]
            for alt in [more["alt"] for more in about if "alt" in more]:
                cell.metadata["mystnb"] = {"image": {"alt": alt, "classes": "zoom"}}
            said = output.get("data", {}).get("text/markdown", "")
            if saved and "mystnb" in cell.metadata and said.startswith("*"):
                files = [f"[{kind}]({figures / saved[1]}.{kind})" for kind in ("csv", "pdf")]
                output.data["text/markdown"] = f"{said} Files: {', '.join(files)}."
    return nbformat.writes(book)


def reference(room: str) -> Iterator[str]:
    """Markdown of one room's page in the API reference, from the docstrings of its public names."""
    folder = paths.ROOT / "analysis_lib" / room
    yield f"# {room}\n"
    yield _documented(f"analysis_lib.{room}", ":no-members:")
    for file in sorted(folder.rglob("*.py")):
        if file.name != "__init__.py":
            inside = file.relative_to(folder.parent).with_suffix("").parts
            yield f"## {'.'.join(inside[1:])}\n"
            yield _documented(".".join(("analysis_lib", *inside)), ":members:")


def _documented(module: str, option: str) -> str:
    return f"```{{eval-rst}}\n.. automodule:: {module}\n   {option}\n```\n"

"""`make site`: the sources of all pages into build/site/source, the explorer's data beside them, and Sphinx over it.

Nothing is executed or measured. Links that lead nowhere and names that Sphinx does not know stop the build."""

import re
import shutil
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from analysis_lib import paths
from analysis_lib.errors import StudyError
from analysis_lib.reports.site import explorer, pages, stills

SITE = paths.ROOT / "build" / "site"
LOOKS = paths.ROOT / "docs" / "site"  # Sphinx's settings, the explorer's page, scripts and styles
ROOMS = ("inputs", "models", "instrument", "study", "findings", "figures", "reports", "embedded")


def sources() -> Iterator[tuple[str, bytes]]:
    """Every file from which the pages are made, as (path in the site, content)."""
    here, executed = paths.ROOT, sorted(paths.EXECUTED.glob("*/[0-9][0-9]_*.ipynb"))
    cards = [here / "data" / "README.md", *sorted(paths.MODELS.glob("*/README.md"))]
    guides = sorted((here / "docs").glob("*.md"))
    sections = {"Explore": ["explorer"]}
    for file in executed:
        sections.setdefault(f"Notebooks: {file.parent.name}", []).append(_name(file))
    first = [here / "docs" / f"{name}.md" for name in pages.GUIDES]
    sections["Guides"] = [_name(file) for file in [*first, *sorted(set(guides) - set(first))]]
    sections["Data and models"] = [_name(file) for file in cards]
    sections["Reference"] = [f"api/{room}" for room in ROOMS]
    yield "index.md", pages.landing(sections).encode()
    yield "explorer.md", (LOOKS / "explorer.md").read_bytes()
    for room in ROOMS:
        yield f"api/{room}.md", "\n".join(pages.reference(room)).encode()
    for file in executed:
        yield f"{_name(file)}.ipynb", pages.notebook(file).encode()
    told = [here / "README.md", *cards, *guides]
    linked = {(text.parent / to).resolve() for text in told for to in re.findall(r"\]\(([^)#:]+)", text.read_text())}
    drawn = (file for file in paths.FIGURES.glob("*/*") if file.suffix in (".png", ".csv", ".pdf"))
    for file in sorted(file for file in {*cards, *guides, *drawn, *linked} if file.is_file()):
        if file.suffix != ".ipynb":
            yield file.relative_to(here).as_posix(), file.read_bytes()


def _name(file: Path) -> str:
    """A page as Sphinx calls it: its path in the site, without the ending."""
    return file.relative_to(paths.ROOT).with_suffix("").as_posix()


def explored() -> Iterator[tuple[str, bytes]]:
    """Every file that the explorer's page loads, as (path, content)."""
    sets, at_hand = explorer.stored_sets(), set()
    for name, content in stills.strips(sets):
        at_hand.add(Path(name).stem)
        yield name, content
    yield from stills.pictures(sets)
    yield from explorer.files(sets, at_hand)
    for name in ("bokeh.min.js", "bokeh-api.min.js"):  # draws the curves; a quarter of plotly's size
        yield name, (files("bokeh") / "server" / "static" / "js" / name).read_bytes()


def build() -> Path:
    """Make the site anew and return its folder. Raises StudyError if Sphinx finds fault with a page."""
    from sphinx.cmd.build import build_main  # heavy

    shutil.rmtree(SITE, ignore_errors=True)
    for name, content in sources():
        paths.write_atomic(SITE / "source" / name, content)
    for name, content in explored():
        paths.write_atomic(SITE / "extra" / "explorer" / name, content)
    quiet = ["-q", "-W", "--keep-going", "-d", str(SITE / "doctrees")]
    if build_main([*quiet, "-c", str(LOOKS), str(SITE / "source"), str(SITE / "html")]):
        raise StudyError("Sphinx finds fault with the pages above; mend their sources and run `make site` again")
    return SITE / "html"


if __name__ == "__main__":
    try:
        print(f"the site is in {build()}: open index.html there")
    except StudyError as error:
        sys.exit(f"error: {error}")

"""The sources of the site's pages."""

import nbformat
from nbformat.v4 import new_code_cell, new_notebook, new_output

from analysis_lib import paths
from analysis_lib.reports import readme
from analysis_lib.reports.site import build, pages


def test_the_landing_page_has_the_readmes_top_its_findings_and_the_tree():
    page = pages.landing({"Explore": ["explorer"], "Guides": ["docs/new_model"]})
    assert page.startswith("# Where does a Video LLM get its answer from?") and "## On a GPU node" not in page
    for row in readme.findings_block().splitlines():
        assert row.split("**")[0].rstrip("| ") in page
    assert 'color:#4daf4a">✓</span> **reproduced**' in page.lower()
    assert "make reproduce " in page and ":caption: Guides\ndocs/new_model\n" in page


def test_a_notebooks_page_folds_code_and_knows_its_figures(tmp_path):
    picture = new_output("display_data", {"image/png": "aGk="}, metadata={"image/png": {"alt": "A curve.", "width": 9}})
    caption = new_output("display_data", {"text/markdown": "*A curve.*"})
    claim = new_output("display_data", {"text/markdown": "**Reproduced**"})
    drawn = new_code_cell('figures.save(fig, "01_curve", table, alt)', outputs=[claim, picture, caption])
    cells = [drawn, new_code_cell("1", outputs=[claim])]
    (tmp_path / "mine").mkdir()
    nbformat.write(new_notebook(cells=cells), file := tmp_path / "mine" / "01_x.ipynb")

    first, second = nbformat.reads(pages.notebook(file), as_version=4).cells
    assert first.metadata["tags"] == second.metadata["tags"] == ["hide-input"]
    assert first.metadata["mystnb"]["image"]["alt"] == "A curve." and "mystnb" not in second.metadata
    texts = [output.data.get("text/markdown") for output in first.outputs]
    assert texts[0] == "**Reproduced**" and "[csv](../../../figures/mine/01_curve.csv)" in texts[2]


def test_the_reference_has_every_module_of_a_room():
    page = "".join(pages.reference("findings"))
    names = [file.stem for file in (paths.ROOT / "analysis_lib" / "findings").glob("[a-z]*.py")]
    assert names and all(f"automodule:: analysis_lib.findings.{name}\n   :members:" in page for name in names)


def test_every_executed_notebook_and_guide_is_a_page_in_the_tree():
    files = {name: content for name, content in build.sources() if name.endswith((".md", ".ipynb"))}
    tree = files["index.md"].decode()
    assert all(f"\n{name.rpartition('.')[0]}\n" in tree for name in files if name != "index.md")
    assert {f"docs/{file.name}" for file in (paths.ROOT / "docs").glob("*.md")} <= files.keys()

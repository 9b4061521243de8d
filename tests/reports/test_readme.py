"""The README's numbers are those of the stored results."""

import pandas as pd
import pytest
import yaml

from analysis_lib import paths
from analysis_lib.errors import StudyError
from analysis_lib.reports import readme

BEGIN, END = "<!-- findings: written by `make readme` -->\n", "<!-- end of findings -->\n"


def test_readme_states_the_stored_findings():
    text = (paths.ROOT / "README.md").read_text()
    block = text.split(BEGIN)[1].split(END)[0]
    assert block == readme.findings_block()
    assert block.count("](notebooks/executed/") == 4 and block.count("reproduced**") + block.count("undecided**") >= 12


def test_readme_states_the_stored_cost():
    assert readme.cost_block() in (paths.ROOT / "README.md").read_text()


def test_readme_states_the_measured_drift():
    assert readme.drift_block() in (paths.ROOT / "README.md").read_text()


def test_the_page_on_scale_states_how_the_store_grows():
    table = pd.read_csv(paths.DATA / "bench" / "store.csv")
    assert {*readme.STORE_USES, "fill"} == set(table["use"])
    assert readme.store_block() in (paths.ROOT / "docs" / "scale.md").read_text()


def test_only_the_marked_block_changes(tmp_path, monkeypatch):
    monkeypatch.setitem(readme.FILES, "README.md", ("<!-- {} -->\n", {"findings": lambda: "new\n"}))
    file = tmp_path / "README.md"
    file.write_text(f"before\n{BEGIN}old\n{END}after\n")
    readme.write_blocks(file, *readme.FILES["README.md"])
    assert file.read_text() == f"before\n{BEGIN}new\n{END}after\n"


def test_missing_marks_are_an_error(tmp_path):
    (tmp_path / "README.md").write_text("nothing\n")
    with pytest.raises(StudyError, match="must hold the marks"):
        readme.write_blocks(tmp_path / "README.md", *readme.FILES["README.md"])


def test_the_citation_names_the_record():
    text = (paths.ROOT / "CITATION.cff").read_text()
    assert readme.record_block() in text
    cited = yaml.safe_load(text)
    assert len(cited["commit"]) == 40 and "findings are reproduced" in cited["abstract"]

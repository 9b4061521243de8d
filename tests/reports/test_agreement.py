"""The report of a reproduction: what it prints, what it writes, and the exit code."""

import pytest
import records

from analysis_lib import paths
from analysis_lib.errors import StudyError
from analysis_lib.reports import agreement


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return records.study(tmp_path_factory.mktemp("study"))


@pytest.fixture
def place(original, tmp_path, monkeypatch):
    """A folder with a run in `run/results`, and as the record a copy of it in `record`, free to be changed."""
    monkeypatch.setattr(paths, "RESULTS", tmp_path / "record")
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    for root in ("record", "run/results"):
        records.copy(original, tmp_path / root)
    return tmp_path


def report(place):
    return agreement.report("org/video", "", "embedded", "auto", str(place / "run"))


def test_a_run_that_agrees_says_so_last(place, capsys):
    assert report(place) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "12 of 12 findings agree with the record" and len(lines) <= 50
    assert max(map(len, lines)) <= 150
    assert "no version, setting or machine differs" in lines
    page = (place / "run" / "report.md").read_text()
    assert "| Frames exchange information in the first half of the layers | " in page
    assert "| video/embedded-k3-center, knockout | 7920 | 0 |" in page and page.endswith(f"**{lines[-1]}**\n")


def test_a_fault_is_named_with_what_differs_and_ends_with_3(place, capsys):
    record = place / "record" / records.FOLDER
    records.change(record, "knockout", lambda rows: rows.assign(relative_change=rows["relative_change"] + 3.0))
    records.describe(record, threads=8)
    assert report(place) == agreement.DISAGREES == 3
    out = capsys.readouterr().out
    assert "  threads: 8 | 2" in out
    last = out.splitlines()[-1]
    assert last.startswith("7 of 12 findings agree with the record; not cross-frame early: change moved by 3 %")
    assert "another processor, a GPU, another number of threads" in last
    assert "| threads | 8 | 2 | differs |" in (place / "run" / "report.md").read_text()


def test_another_seed_is_said_and_agrees(place, capsys):
    records.describe(place / "record" / records.FOLDER, settings={"seed": 1})
    report(place)
    assert "another seed: random edges, shuffled frames" in capsys.readouterr().out


def test_a_record_that_cannot_be_compared_is_one_line_and_the_run_is_kept(place):
    (place / "record" / records.FOLDER / "manifest.json").unlink()
    with pytest.raises(StudyError, match="it has no manifest.json; the run is kept in "):
        report(place)


def test_a_model_without_a_record_stands_beside_the_paper(place, capsys):
    (place / "record" / records.FOLDER).rename(place / "record" / "gone")
    assert report(place) == 0
    out = capsys.readouterr().out
    assert "record holds no record of video/embedded-k3-center" in out and "E(b), Action Antonym" in out
    assert out.splitlines()[-1] == "there is no record to agree with"
    assert "no record to agree with" in (place / "run" / "report.md").read_text()


def test_a_place_without_the_model_is_refused(place):
    with pytest.raises(StudyError, match="holds no results of other to report on"):
        agreement.report("other", "", "embedded", "auto", str(place / "run"))

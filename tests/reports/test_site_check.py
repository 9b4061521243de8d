"""What the look at the site finds, without a browser."""

import pytest

from analysis_lib.errors import StudyError
from analysis_lib.reports.site import check


def test_without_a_browser_it_says_how_to_install_one(monkeypatch):
    monkeypatch.setattr(check.shutil, "which", lambda name: None)
    with pytest.raises(StudyError, match="did not run: no browser.*apt-get install chromium"):
        check.check()


def test_links_to_no_file_and_to_no_place_are_found(tmp_path):
    for name in ("a.html", "b.html", "c.csv"):
        (tmp_path / name).write_text("")
    a, b = tmp_path / "a.html", tmp_path / "b.html"
    good = {f"{b.as_uri()}#there", f"{b.as_uri()}", (tmp_path / "c.csv").as_uri(), "https://elsewhere.org/x"}
    assert list(check.dead_links(tmp_path, {a: (set(), good), b: ({"there"}, set())})) == []
    bad = {f"{b.as_uri()}#gone", (tmp_path / "d.html").as_uri(), tmp_path.parent.as_uri()}
    assert len(list(check.dead_links(tmp_path, {a: (set(), bad), b: ({"there"}, set())}))) == 3

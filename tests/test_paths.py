"""A file is the old one or complete."""

import os

import pytest

from analysis_lib.errors import StudyError
from analysis_lib.paths import write_atomic


def test_disk_that_fills_up_leaves_what_was_there(tmp_path, monkeypatch):
    write_atomic(tmp_path / "x", b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StudyError, match="cannot write .*No space left on device"):
        write_atomic(tmp_path / "x", b"new")
    assert [file.name for file in tmp_path.iterdir()] == ["x"] and (tmp_path / "x").read_bytes() == b"old"

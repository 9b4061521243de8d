"""The soak, small: what it looks for it would find."""

import tempfile
from pathlib import Path

import pytest

from analysis_lib.reports import soak


@pytest.mark.slow
def test_a_kill_of_a_worker_and_one_of_the_driver_change_nothing():
    with tempfile.TemporaryDirectory(prefix="soak") as folder:  # Ray's sockets allow no long path
        assert [*soak.soak(Path(folder), samples=4, kills=1)] == []


def test_what_is_wrong_is_said(tmp_path, monkeypatch):
    def sweep(out, temporary, samples):
        out.mkdir(exist_ok=True)
        (out / "manifest.json").write_text(out.name)
        soak.pd.DataFrame({"sample_id": ["t/0001"] * (1 + (out.name == "out"))}).to_parquet(out / "baseline.parquet")
        (temporary / "flow-1").mkdir(exist_ok=True)
        (temporary / soak.SECONDS).touch()

    monkeypatch.setattr(soak, "run", sweep)
    monkeypatch.setattr(soak, "finished", lambda process: None)
    wrong = [line.replace(str(tmp_path), "") for line in soak.soak(tmp_path, 1, 0)]
    assert wrong[:3] == ["2 samples in place of 1", "baseline.parquet differs", "manifest.json differs"]
    assert "/t/flow-1 is left" in wrong

"""The door between the study and the embedded benchmark."""

import pytest

from analysis_lib import paths
from analysis_lib.embedded import quiz
from analysis_lib.embedded.door import load_benchmark
from analysis_lib.errors import StudyError
from analysis_lib.inputs import benchmarks


def test_embedded_benchmark_is_rendered_once(tmp_path, monkeypatch):
    folder, render = tmp_path / "benchmark", quiz.write_benchmark
    monkeypatch.setattr(paths, "BENCHMARK", folder)
    monkeypatch.setattr(quiz, "write_benchmark", lambda root: render(root, questions_per_task=2))
    with pytest.raises(StudyError, match="run python -m analysis_lib benchmark"):
        benchmarks.load_benchmark("embedded")
    samples, skips = load_benchmark("embedded")
    assert len(samples) == 10 and not skips and all(s.video.is_file() for s in samples)
    stamp = (folder / "manifest.json").stat().st_mtime_ns
    assert load_benchmark("embedded")[0] == samples and (folder / "manifest.json").stat().st_mtime_ns == stamp

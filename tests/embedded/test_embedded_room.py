"""The room `embedded` in one walk: from a seed to a benchmark that the other rooms read like any other."""

import json

from analysis_lib import paths
from analysis_lib.embedded import door, quiz
from analysis_lib.inputs.videos import load_clip


def test_a_seed_becomes_a_benchmark_behind_one_door(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "BENCHMARK", tmp_path / "benchmark")
    write = quiz.write_benchmark
    monkeypatch.setattr(quiz, "write_benchmark", lambda folder: write(folder, questions_per_task=1))

    samples, skips = door.load_benchmark("embedded")  # rendered when it is first asked for

    assert [sample.task for sample in samples] == sorted(quiz.TASKS) and not skips
    for sample in samples:
        assert sample.video.suffix == ".mp4" and 2 <= len(sample.options) <= 4
        assert sample.answer_text == sample.options[sample.answer]
        clip = load_clip(sample.video, 8)
        assert clip.frames.shape == (8, 96, 96, 3) and list(clip.indices) == sorted(set(clip.indices))
    stated = json.loads((tmp_path / "benchmark" / "manifest.json").read_text())
    assert len(stated["frames_sha256"]) == len(samples)  # of the pictures before encoding


def test_the_lens_gets_the_worlds_own_words():
    words = door.keywords("embedded")
    assert "red" in words["spatial"] and "first" in words["temporal"]
    assert door.keywords("tvbench:/data/TVBench") is None

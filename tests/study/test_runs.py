"""A sweep stores what it measured once, resumes after any death, and gives back what was asked for."""

import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from clips import item, write_clip, write_sound
from conftest import GOLDEN
from sweeps import EDGES, files, sweep

from analysis_lib import paths
from analysis_lib.errors import StudyError
from analysis_lib.study import runs, tables
from analysis_lib.study.request import MEASURES
from analysis_lib.study.tables import SECONDS

# ---- dying and going on ----


def test_only_a_sweep_that_measures_notes_its_time(full, root):
    sweep(root, full.dir)
    measures, samples, seconds = (full.dir / SECONDS).read_text().strip().split(",")
    assert measures == " ".join(MEASURES) and samples == "4" and float(seconds) > 0


def test_two_runs_from_scratch_are_equal_byte_for_byte(root, full, tmp_path):
    sweep(root, tmp_path)
    assert files(tmp_path) == files(full.dir)


@pytest.mark.slow
def test_killed_run_resumes_to_the_same_bytes(root, full, tmp_path):
    script = f"""
from analysis_lib.study import runs
runs.sweep(model={str(GOLDEN)!r}, benchmark="tvbench:{root}", edges={EDGES!r}, keep="all", out={str(tmp_path)!r})
"""
    run = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 600  # on a busy machine
    while not list((tmp_path / "parts").glob("*.arrow")) and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(run.pid, signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    stored = len(list((tmp_path / "parts").glob("*.arrow")))
    assert 1 <= stored < 4
    found = sweep(root, tmp_path)
    assert files(tmp_path) == files(full.dir)
    assert not found.knockout.frame().duplicated(tables.keys("knockout")).any()


def test_resume_measures_only_what_is_left(root, tmp_path, measured, monkeypatch, capsys):
    real = runs.Store.add

    def dying(store, sample_id, rows):
        if len(measured) == 2:
            raise KeyboardInterrupt
        real(store, sample_id, rows)

    with monkeypatch.context() as patch:
        patch.setattr(runs.Store, "add", dying)
        with pytest.raises(KeyboardInterrupt):
            sweep(root, tmp_path, measure="emergence")
    measured.clear()
    sweep(root, tmp_path, measure="emergence")
    assert len(measured) == 3 and "1 of 4 samples stored, computing 3" in capsys.readouterr().out


def test_disk_that_fills_up_ends_in_one_line_and_can_be_resumed(root, full, tmp_path, monkeypatch):
    real, count = paths.os.replace, iter(range(100))

    def filling(source, target):
        if next(count) == 4:  # after the probe, the skipped table, the manifest and one sample
            raise OSError(28, "No space left on device")
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(paths.os, "replace", filling)
        with pytest.raises(StudyError, match="cannot write .*No space left on device.*--out"):
            sweep(root, tmp_path)
    sweep(root, tmp_path)
    assert files(tmp_path) == files(full.dir)


def test_second_run_loads_no_model_and_changes_no_byte(root, copy, full, no_model):
    found = sweep(root, copy)
    assert files(copy) == files(full.dir)
    pd.testing.assert_frame_equal(found.knockout.frame(), full.knockout.frame())


# ---- giving back ----


def test_results_hold_what_was_asked_for(root, copy):
    found = sweep(root, copy, samples=1, tasks="object_count", edges="cross-frame", measure=["knockout"])
    assert set(found.baseline["task"]) == {"object_count"} and len(found.baseline) == 1
    assert found.knockout.values("edge_set") == {"cross-frame"} and len(found.knockout) == 12
    assert not len(found.lens) and len(pd.read_parquet(copy / "knockout.parquet")) == 96


def test_another_keep_reads_the_same_folder_and_returns_its_own_samples(root, copy, full):
    found = sweep(root, copy, keep="correct")  # the random model is never right
    assert len(found.baseline) == len(full.baseline) and not len(found.knockout)
    assert files(copy) == files(full.dir)


def test_redraw_needs_no_model_and_no_benchmark(root, full, monkeypatch, no_model):
    monkeypatch.setattr(runs, "load_benchmark", lambda *_, **__: pytest.fail("the benchmark was read"))
    found = runs.sweep(
        model="gone/model", benchmark="tvbench:/gone", edges=EDGES, keep="all", samples=1, out=full.dir, compute=False
    )
    assert len(found.baseline) == 2 and len(found.knockout) == 2 * 24


def test_more_than_was_asked_for_is_not_read(root, full, copy):
    found = sweep(root, copy, samples=1, edges="cross-frame", measure=["knockout"])
    assert found.knockout.values("edge_set") == {"cross-frame"} < full.knockout.values("edge_set")
    assert not len(found.knockout.frame(edge_set=["video->last"]))
    assert found.knockout.values("sample_id") == set(found.baseline["sample_id"]) < full.knockout.values("sample_id")


def test_redraw_of_what_is_not_stored_names_the_command(root, full, tmp_path):
    for lacking in ({"edges": "all"}, {"tasks": "moving_direction"}, {"out": tmp_path}):
        with pytest.raises(StudyError, match="measure them: python -m analysis_lib sweep --model .*pllava_tiny"):
            sweep(root, **({"out": full.dir} | lacking), compute=False)


# ---- bad samples ----


@pytest.fixture
def bad_root(tmp_path):
    folder = tmp_path / "bench" / "video" / "t"
    write_clip(folder / "good.mp4")
    (folder / "empty.mp4").touch()
    whole = write_clip(folder / "truncated.mp4", 40, movflags="+faststart").read_bytes()
    (folder / "truncated.mp4").write_bytes(whole[: len(whole) // 2])
    write_clip(folder / "short.mp4", 5)
    write_sound(folder / "sound.mp4")
    same = ["He sits.", "He sits. He sits.", "Он сидит 🚶", "He"]
    items = [
        item("missing.mp4"), item("empty.mp4"), item("truncated.mp4"), item("short.mp4"), item("sound.mp4"),
        item("good.mp4", answer="It flies."), item("good.mp4", candidates=["left", "left"]),
        item("good.mp4", "He sits. – Sitzt er? 坐下 He sits.", same, same[1]), item("good.mp4"),
        item("good.mp4", "What is <image> here?"),
    ]  # fmt: skip
    (tmp_path / "bench" / "json").mkdir()
    (tmp_path / "bench" / "json" / "t.json").write_text(json.dumps(items))
    return tmp_path / "bench"


REASONS = [
    "no such video", "is empty", "truncated", "holds 5 frames", "no video stream", "not among", "duplicate options",
    None, None, "stands for the video",
]  # fmt: skip


def test_bad_samples_are_skipped_with_their_reason_and_the_rest_is_measured(bad_root, tmp_path, measured):
    found = sweep(bad_root, tmp_path / "out", measure="emergence")
    assert found.baseline["sample_id"].tolist() == ["t/0007", "t/0008"]
    reasons = found.skipped.set_index("sample_id")["reason"]
    for number, reason in enumerate(REASONS):
        assert reason is None or reason in reasons[f"t/{number:04d}"]
    assert not reasons.str.contains(str(bad_root)).any()  # the same wherever the benchmark lies
    assert found.manifest["samples"]["t"] == {"measured": 2, "correct": 0, "skipped": 8}
    measured.clear()
    again = sweep(bad_root, tmp_path / "out", measure="emergence")
    assert not measured and len(again.skipped) == 8


def test_a_repaired_clip_is_measured_at_the_next_run(bad_root, tmp_path):
    sweep(bad_root, tmp_path / "out", measure="emergence")
    write_clip(bad_root / "video" / "t" / "missing.mp4")
    found = sweep(bad_root, tmp_path / "out", measure="emergence")
    assert "t/0000" in set(found.baseline["sample_id"]) and "t/0000" not in set(found.skipped["sample_id"])

"""A request finds its folder; a sweep that grows computes what is missing, and refuses to mix what does not belong."""

import shutil
import subprocess
import sys

import pandas as pd
import pytest
from clips import write_clip
from conftest import GOLDEN
from sweeps import EDGES, files, sweep

from analysis_lib import paths
from analysis_lib.errors import StudyError
from analysis_lib.study import runs
from analysis_lib.study.folders import results_dir


def test_default_folder_names_model_benchmark_window_and_style():
    found = results_dir(str(GOLDEN), "tvbench:/x", style="inverse")
    assert found == paths.RESULTS / "pllava_tiny" / "tvbench-k3-inverse"
    assert results_dir("gone", window=9, root="/o").as_posix() == "/o/results/gone/embedded-k9-center"


def test_finding_a_folder_and_reading_it_does_not_wait_for_torch():
    script = "import sys; from analysis_lib.study import folders, tables; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_more_samples_edges_and_measures_compute_only_what_is_missing(root, full, tmp_path, measured):
    sweep(root, tmp_path, samples=1, edges=EDGES[:1], measure="knockout")
    first = {name for name, _ in measured}
    assert len(first) == 2
    measured.clear()
    grown = sweep(root, tmp_path)
    todo = dict(measured)
    assert len(todo) == 4 and todo[min(first)].edges == {"knockout": EDGES[1:]} and todo[min(first)].frames_sha256
    assert todo[min(first)].measures == {"emergence", "lens", "pathway"}
    pd.testing.assert_frame_equal(grown.knockout.frame(), full.knockout.frame(), rtol=1e-3, atol=1e-3)
    pd.testing.assert_frame_equal(grown.baseline, full.baseline)


def test_maps_grow_by_what_is_missing_and_redraw_without_a_model(root, copy, measured, monkeypatch):
    into_last = ("true_option->last", "question->last")
    sweep(root, copy, samples=1, edges=into_last[:1], measure="heads")
    first = {name for name, _ in measured}
    measured.clear()
    grown = sweep(root, copy, edges=into_last, measure=("heads", "pairs"))
    assert dict(measured)[min(first)].edges == {"heads": into_last[1:]}
    assert dict(measured)[min(first)].measures == {"pairs"} and len(measured) == 4
    stored = files(copy)
    with monkeypatch.context() as patch:
        patch.setattr(runs, "_load", lambda *_: pytest.fail("a model was loaded"))
        again = sweep(root, copy, edges=into_last, measure=("heads", "pairs"), compute=False)
        with pytest.raises(StudyError, match="measure them: python -m analysis_lib sweep"):
            sweep(root, copy, edges="video->last", measure="heads", compute=False)
    pd.testing.assert_frame_equal(again.heads, grown.heads)
    pd.testing.assert_frame_equal(again.pairs, grown.pairs)
    assert files(copy) == stored


def test_keep_correct_gives_a_model_that_is_never_right_no_knockouts(root, tmp_path):
    found = sweep(root, tmp_path, keep="correct", samples=1)
    assert len(found.baseline) == 2 and not len(found.knockout) and not len(found.lens)
    assert set(found.pathway["sample_id"]) == set(found.baseline["sample_id"])  # accuracy counts wrong answers too
    assert (tmp_path / "knockout.parquet").exists()


def test_another_question_under_the_same_number_is_refused(root, copy, tmp_path):
    changed = shutil.copytree(root, tmp_path / "bench")
    file = changed / "json" / "object_count.json"
    file.write_text(file.read_text().replace("How many objects", "How many things"))
    with pytest.raises(StudyError, match="another question or clip object_count/0000"):
        sweep(changed, copy)


def test_another_clip_under_the_same_name_is_refused(root, copy, tmp_path):
    changed = shutil.copytree(root, tmp_path / "bench")
    write_clip(changed / "video" / "object_count" / "o1.mp4", seed=9)
    with pytest.raises(StudyError, match="another question or clip object_count/0001"):
        sweep(changed, copy)

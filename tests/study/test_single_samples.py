"""What is stored of single samples: the self-test, the ways that a pathway leaves open, examples for pictures."""

import numpy as np
import pytest
from clips import write_small_benchmark
from conftest import GOLDEN

from analysis_lib.errors import StudyError
from analysis_lib.study import runs, single_samples

RANGES = {"cross_frame": (2, 6), "video_question": (3, 8), "question_last": (7, 10)}


@pytest.fixture(scope="module")
def where(tmp_path_factory):
    root = write_small_benchmark(tmp_path_factory.mktemp("bench"), 1)
    return {"model": str(GOLDEN), "benchmark": f"tvbench:{root}", "device": "cpu"}


def test_open_routes_are_measured_once_for_each_ranges(tmp_path, where):
    with pytest.raises(StudyError, match="not stored"):
        single_samples.open_routes(tmp_path, RANGES, compute=False, **where)
    ways = single_samples.open_routes(tmp_path, RANGES, **where).set_index(["pathway", "route"])
    through_question = ways.loc[("effective", "video -> question_block -> last")]
    assert through_question["open"] and through_question["named"] and through_question["arrives"] == 7
    assert not ways["open"].loc[[("effective", "video -> last"), ("strict", "video -> last")]].any()
    leaks = ways[ways["open"] & ~ways["named"]]
    assert set(leaks.index.get_level_values("pathway")) == {"effective"}  # through template text; strict closes it
    again = single_samples.open_routes(tmp_path, RANGES, compute=False, **where)
    assert again.set_index(["pathway", "route"]).equals(ways)
    later = single_samples.open_routes(tmp_path, RANGES | {"question_last": (9, 10)}, **where)
    assert later.set_index(["pathway", "route"]).loc[("effective", "video -> question_block -> last"), "arrives"] == 9


def test_a_failed_check_stops_also_when_it_is_stored(tmp_path, where, monkeypatch):
    real = single_samples.self_test
    monkeypatch.setattr(single_samples, "self_test", lambda vlm, inputs: real(vlm, inputs).assign(passed=False))
    for compute in (True, False):
        with pytest.raises(StudyError, match="no result of this model can be trusted"):
            single_samples.instrument_checks(tmp_path, compute=compute, **where)
    monkeypatch.undo()
    (tmp_path / "self_test.csv").unlink()
    assert single_samples.instrument_checks(tmp_path, **where)["passed"].all()


def test_example_redraws_without_a_model(root, full, no_model):
    request = {"model": str(GOLDEN), "benchmark": f"tvbench:{root}", "keep": "all", "out": full.dir, "compute": False}
    shown = runs.example("object_count", **request)
    assert shown.question == "How many objects move?" and shown.answer == "C" and shown.kinds["bag"] == "spatial"
    assert shown.frames.shape == (8, 48, 48, 3) and shown.words.shape == (12, 8, 2, 2)
    maps = shown.maps("Objects")
    assert [m.shape for m in maps.values()] == [(12, 8, 2, 2)] * 2
    assert not np.allclose(*maps.values())
    assert all(0 < m.sum(axis=(1, 2, 3)).max() <= 1 for m in maps.values())
    with pytest.raises(StudyError, match="no word of this question; its words: .*objects, move"):
        shown.maps("colour")


def test_example_is_the_first_of_the_draw_unless_named(root, copy):
    request = {"model": str(GOLDEN), "benchmark": f"tvbench:{root}", "keep": "all", "out": copy}
    first = runs.example("object_count", **request, samples=1)
    assert first.sample_id == runs.example("object_count", **request).sample_id
    assert runs.example("object_count", sample_id="object_count/0001", **request).sample_id == "object_count/0001"

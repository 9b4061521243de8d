"""What is measured on the first question and stored: the self-test, and the ways that a pathway leaves open."""

import pytest
from clips import write_small_benchmark
from conftest import GOLDEN

from analysis_lib.errors import StudyError
from analysis_lib.study import single_samples

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

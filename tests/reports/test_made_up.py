"""Made-up results look like those of a sweep: complete, in the study's own tables, and the same every time."""

import pandas as pd

from analysis_lib.reports import made_up
from analysis_lib.study.folders import lacking
from analysis_lib.study.store import Store
from analysis_lib.study.tables import read_table


def test_a_sweep_would_find_nothing_to_measure(tmp_path):
    made_up.fill(tmp_path, 0, 10)
    made_up.fill(tmp_path, 10, 40)
    with Store(tmp_path, write=False) as store:
        assert not lacking(store, made_up.request(measure="knockout,emergence,lens,controls"))
    knockout = read_table(tmp_path, "knockout")
    assert knockout.groupby("sample_id").size().eq(352).all() and knockout["sample_id"].nunique() == 40
    assert knockout["relative_change"].between(-60, 0).all()
    change = 100 * (knockout["p_knock"] - knockout["p_base"]) / knockout["p_base"]
    pd.testing.assert_series_equal(knockout["relative_change"], change, check_names=False)


def test_single_heads_are_cut_in_what_is_drawn_first_at_every_size():
    request, heads = made_up.request(), made_up.drawn_first(200)
    for count in (20, 60, 200):
        tasks = pd.Series(made_up.sample_ids(count)).groupby(lambda place: place % made_up.TASKS)
        first = {min(names, key=request.rank) for _, names in tasks}
        assert len(first) == made_up.TASKS and first <= heads
    assert made_up.sample_file("task_00/0003") == made_up.sample_file("task_00/0003")
    assert len(made_up.sample_file("task_00/0003", heads=True)) > len(made_up.sample_file("task_00/0003"))

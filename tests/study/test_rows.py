"""Rows that are asked for: a task at a time, and no more than was asked."""

import pandas as pd
import pytest

from analysis_lib.study.rows import Rows, as_rows, matched, stacked


@pytest.fixture
def frame():
    return pd.DataFrame(
        {"task": list("bbaa"), "sample_id": ["b/0", "b/1", "a/0", "a/1"], "layer": [1, 2, 1, 2], "x": [1.0, 2, 3, 4]}
    )


def test_a_frame_for_each_task_in_order(frame):
    parts = [*as_rows(frame).parts(["task", "x"], layer=[2])]
    assert [part.to_dict("list") for part in parts] == [{"task": ["a"], "x": [4.0]}, {"task": ["b"], "x": [2.0]}]
    assert [len(part) for part in as_rows(frame).parts(task=["b", "gone"])] == [2]


def test_only_what_is_asked_for_is_read(frame):
    asked = []
    rows = Rows(lambda columns, where: asked.append((columns, where)) or frame[list(columns)], ["a"])
    rows.only(layer=[1, 2]).frame(["x"], layer=[2, 3])
    assert asked == [(["x"], {"layer": {2}, "task": ["a"]})]


def test_whole_columns_values_and_length(frame):
    rows = as_rows(frame)
    assert rows["x"].tolist() == [3, 4, 1, 2] and rows.values("layer") == {1, 2} and len(rows) == 4
    none = as_rows(frame.iloc[:0])
    assert len(none) == 0 and list(none.frame()) == list(frame) and none.values("x") == set()


def test_a_computed_column_takes_the_place_of_another(frame):
    rows = as_rows(frame).computed("x", ["x", "layer"], lambda part: part["x"] * part["layer"])
    assert rows["x"].tolist() == [3, 8, 1, 4] and list(rows.frame(["task", "x"])) == ["task", "x"]
    assert rows["layer"].tolist() == [1, 2, 1, 2] and list(rows.frame()) == list(frame)


def test_tables_below_and_beside_each_other(frame):
    both = stacked({"old": frame, "new": frame.assign(x=0.0)})
    assert both.values("series") == {"old", "new"} and len(both) == 8
    assert both.only(series=["new"])["x"].tolist() == [0.0] * 4
    pairs = matched({"old": frame, "new": frame[frame["layer"] == 2]}, ["task", "sample_id", "layer"])
    assert pairs["x_new"].tolist() == pairs["x_old"].tolist() == [4.0, 2.0]

"""Rows that are asked for: a task at a time, and no more than was asked."""

import pandas as pd
import pytest

from analysis_lib.errors import StudyError
from analysis_lib.study import parts, tables
from analysis_lib.study.rows import Rows, as_rows, matched, stacked, stored_rows


@pytest.fixture
def frame():
    return pd.DataFrame(
        {"task": list("bbaa"), "sample_id": ["b/0", "b/1", "a/0", "a/1"], "layer": [1, 2, 1, 2], "x": [1.0, 2, 3, 4]}
    )


@pytest.fixture
def folder(tmp_path):
    """A results folder with a lens of two tasks."""
    lens = dict(layer=1, keyword="on", kind="spatial", video="v", count=1)
    for table, more in (("baseline", {"video": "v"}), ("lens", lens)):
        rows = [{"task": task, "sample_id": f"{task}/{i}"} | more for task in ("b", "a-c", "a") for i in (0, 1)]
        parts.merge(tmp_path, table, tables.pa.Table.from_pylist(rows, tables.schema(table)))
    return tmp_path


def test_a_small_table_is_read_once(folder, monkeypatch):
    rows = stored_rows(folder, "lens")
    monkeypatch.setattr(tables, "read_files", None)
    assert [part["sample_id"].tolist() for part in rows.parts(["sample_id"], task=["a", "b"])] == [
        ["a/0", "a/1", "b/0", "b/1"]
    ]


def test_of_a_large_table_the_parts_of_one_task_after_the_other_are_opened(folder, monkeypatch):
    rows, opened = parts.read_files("lens", tables.stored(folder, "lens")), []
    monkeypatch.setattr(parts, "largest", lambda table: 3)
    parts.replace(folder, "lens", rows)
    read = tables.read_files
    monkeypatch.setattr(
        tables,
        "read_files",
        lambda table, files, *more: opened.append([f.name for f in files]) or read(table, files, *more),
    )
    found = stored_rows(folder, "lens", layer=[1])
    opened.clear()  # the tasks were asked for
    assert [part["sample_id"].tolist() for part in found.parts(["sample_id"], task=["a", "b"])] == [
        ["a/0", "a/1"],
        ["b/0", "b/1"],
    ]
    assert opened == [["part-a-000000.parquet"], ["part-b-000000.parquet"]]


def test_rows_say_how_to_get_a_frame(frame):
    rows = as_rows(frame)
    assert ".frame()" in repr(rows) and "2 tasks" in repr(rows) and not hasattr(rows, "shape")
    with pytest.raises(AttributeError, match=r"rows have no 'groupby'.*\.frame\(\) makes one of all"):
        rows.groupby("layer")
    for what in (["x", "layer"], frame["x"], frame["x"].iloc[:2] > 1):
        with pytest.raises(StudyError, match=r"\.frame\(\) makes one of all"):
            rows[what]


def test_a_mask_of_all_rows_marks_rows(frame):
    by_task = Rows(lambda columns, where: as_rows(frame).frame(columns, **where), ["a", "b"])
    for rows in (as_rows(frame), by_task):
        assert rows[rows["layer"] == 2]["x"].tolist() == [x for x in rows["x"] if x in (2, 4)]
        assert list(rows[rows["layer"] == 3]) == list(frame)


def test_only_what_is_asked_for_is_read(frame):
    asked = []
    rows = Rows(lambda columns, where: asked.append((columns, where)) or frame[list(columns)], ["a"])
    rows.only(layer=[1, 2]).frame(["x"], layer=[2, 3])
    assert asked == [(["x"], {"layer": {2}, "task": ["a"]})]


def test_whole_columns_values_and_length(frame):
    rows = as_rows(frame)
    assert rows["x"].tolist() == [1, 2, 3, 4] and rows.values("layer") == {1, 2} and len(rows) == 4
    none = as_rows(frame.iloc[:0])
    assert len(none) == 0 and list(none.frame()) == list(frame) and none.values("x") == set()


def test_a_computed_column_takes_the_place_of_another(frame):
    rows = as_rows(frame).computed("x", ["x", "layer"], lambda part: part["x"] * part["layer"])
    assert rows["x"].tolist() == [1, 4, 3, 8] and list(rows.frame(["task", "x"])) == ["task", "x"]
    assert rows["layer"].tolist() == [1, 2, 1, 2] and list(rows.frame()) == list(frame)


def test_tables_below_and_beside_each_other(frame):
    both = stacked({"old": frame, "new": frame.assign(x=0.0)})
    assert both.values("series") == {"old", "new"} and len(both) == 8
    assert both.only(series=["new"])["x"].tolist() == [0.0] * 4
    pairs = matched({"old": frame, "new": frame[frame["layer"] == 2]}, ["task", "sample_id", "layer"])
    assert pairs["x_new"].tolist() == pairs["x_old"].tolist() == [2.0, 4.0]

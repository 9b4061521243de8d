"""Large tables lie in parts: the same rows give the same files, however they came, and a reader opens few of them."""

import itertools
import os
from contextlib import suppress

import pandas as pd
import pytest
from test_store import SETTINGS, baseline, files, rows, run

from analysis_lib.errors import StudyError
from analysis_lib.study import parts, store, tables
from analysis_lib.study.parts import to_part
from analysis_lib.study.store import Store
from analysis_lib.study.tables import read_table

SAMPLES = ("t/0000", "t/0001", "t/0255", "t/0256", "t/9999", "t/10000", "u-v/0000", "u/v/0003")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Tables are large from four rows on, and two finished samples are merged at once."""
    monkeypatch.setattr(parts, "largest", lambda table: 3)
    monkeypatch.setattr(store, "AT_ONCE", 2)


@pytest.fixture
def whole(tmp_path):
    run(tmp_path / "whole", *SAMPLES, edge_sets=("cross-frame", "video->last"))
    return tmp_path / "whole"


def test_a_part_holds_one_task_and_a_range_of_its_samples(whole):
    found = {file.name: pd.read_parquet(file) for file in (whole / "knockout.parquet").iterdir()}
    assert {name: sorted(set(rows["sample_id"])) for name, rows in found.items()} == {
        "part-t-000000.parquet": ["t/0000", "t/0001", "t/0255"], "part-t-000001.parquet": ["t/0256"],
        "part-t-000039.parquet": ["t/10000", "t/9999"], "part-u-v-000000.parquet": ["u-v/0000", "u/v/0003"],
    }  # fmt: skip
    assert all(len(rows) == 4 * rows["sample_id"].nunique() for rows in found.values())
    assert (whole / "skipped.parquet").is_file() and not (whole / "parts").exists()


def test_any_reader_of_parquet_takes_a_folder_of_parts(whole):
    assert len(pd.read_parquet(whole / "knockout.parquet")) == len(read_table(whole, "knockout")) == 4 * len(SAMPLES)


@pytest.mark.parametrize("order", [SAMPLES[::-1], SAMPLES[1::2] + SAMPLES[::2]])
def test_order_of_arrival_and_of_runs_does_not_matter(whole, tmp_path, order):
    for sets in (("video->last",), ("cross-frame", "video->last")):
        run(tmp_path / "b", *order[:3], edge_sets=sets)
    run(tmp_path / "b", *order, edge_sets=("cross-frame", "video->last"))
    assert files(tmp_path / "b") == files(whole)


@pytest.mark.parametrize("steps", range(24))
def test_killed_at_any_step_of_writing(whole, tmp_path, monkeypatch, steps):
    """The n-th renaming never happens, whether of a file, of a table that is split or of the one that makes way."""
    count, real = itertools.count(), os.replace

    def dying(source, target):
        if next(count) == steps:
            raise KeyboardInterrupt
        real(source, target)

    again = tmp_path / "b"
    with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr(os, "replace", dying)
        run(again, *SAMPLES, edge_sets=("cross-frame", "video->last"))
        pytest.fail(f"only {next(count)} files were renamed")
    seen = read_table(again, "knockout")  # a reader who comes now
    assert not seen.duplicated(tables.keys("knockout")).any()
    with Store(again) as opened:
        known = set(opened.read("baseline")["sample_id"])
    assert set(seen["sample_id"]) <= known
    run(again, *(name for name in SAMPLES if name not in known), edge_sets=("cross-frame", "video->last"))
    assert files(again) == files(whole)


def test_one_more_sample_rewrites_one_part(whole):
    before = {file: file.stat().st_ino for file in whole.rglob("*.parquet")}
    run(whole, "t/0002", edge_sets=("cross-frame", "video->last"))
    changed = {file.relative_to(whole).as_posix() for file, inode in before.items() if file.stat().st_ino != inode}
    assert changed == {"knockout.parquet/part-t-000000.parquet", "baseline.parquet/part-t-000000.parquet"}


def test_opening_reads_no_row(whole, monkeypatch):
    monkeypatch.setattr(tables, "dataset", lambda *_, **__: pytest.fail("rows were read"))
    for write in (True, False):
        with Store(whole, write=write) as opened:
            opened.check(SETTINGS)


def test_a_reader_gets_the_columns_and_rows_that_it_names(whole):
    wanted = {"task": ["t", "u-v"], "edge_set": ["video->last"], "sample_id": ["t/0256", "u-v/0000", "gone/0000"]}
    found = read_table(whole, "knockout", ["sample_id", "layer"], wanted)
    assert found.to_dict("list") == {"sample_id": ["t/0256"] * 2 + ["u-v/0000"] * 2, "layer": [1, 2, 1, 2]}


def test_a_reader_sees_samples_that_are_not_merged(whole):
    (whole / "parts").mkdir()
    (whole / "parts" / "t-0007.arrow").write_bytes(to_part(rows("t/0007", "cross-frame")))
    before = files(whole)
    opened = Store(whole, write=False)
    assert len(opened.read("baseline")) == len(SAMPLES) + 1
    assert opened.read("knockout", ["layer"], {"sample_id": ["t/0007"]})["layer"].tolist() == [1, 2]
    found = opened.has("knockout", ["t/0007", "t/0008", "t/0000"], "edge_set", ["video->last", "cross-frame"])
    assert found.tolist() == [[False, True], [False, False], [True, True]]
    assert files(whole) == before


def test_a_skipped_sample_that_is_measured_is_skipped_no_more(tmp_path):
    skip = {"task": "t", "video": "v", "reason": "empty", "sample_sha256": "1"}
    with Store(tmp_path) as opened:
        opened.begin(SETTINGS, {})
        opened.finish(lambda _: {}, skipped=[skip | {"sample_id": name} for name in SAMPLES])
        assert (tmp_path / "skipped.parquet").is_dir()
        opened.add("t/0000", to_part({"baseline": [baseline("t/0000")]}))
        with Store(tmp_path, write=False) as reader:
            assert set(reader.read("skipped")["sample_id"]) == {*SAMPLES[1:]}
        for name in SAMPLES[1:-2]:
            opened.add(name, to_part({"baseline": [baseline(name)]}))
        opened.finish(lambda _: {})
    assert (tmp_path / "skipped.parquet").is_file()
    assert set(read_table(tmp_path, "skipped")["sample_id"]) == {*SAMPLES[-2:]}


def test_a_damaged_part_is_named(whole):
    (whole / "knockout.parquet" / "part-t-000001.parquet").write_bytes(b"damaged")
    with pytest.raises(StudyError, match="knockout.parquet cannot be read.*part-t-000001"):
        read_table(whole, "knockout")


def test_no_number_becomes_no_value(tmp_path):
    with Store(tmp_path) as opened:
        opened.begin(SETTINGS, {})
        opened.add("t/0000", to_part({"baseline": [baseline("t/0000", p_base=float("nan"))]}))
        opened.finish(lambda _: {})
    assert tables.read_files("baseline", tables.stored(tmp_path, "baseline"))["p_base"].null_count == 1

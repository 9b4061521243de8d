"""The bench of the store, on a few samples. No test here is timed."""

import pandas as pd

from analysis_lib import figures
from analysis_lib.reports import bench_store
from analysis_lib.study import parts


def test_every_use_works_on_made_up_samples(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "largest", lambda table: 10_000)
    monkeypatch.setattr(bench_store, "TASKS", 8)
    monkeypatch.setattr(bench_store, "alone", bench_store._measured)  # in this process, whose memory is not asked for
    folder = tmp_path / "made-up" / "embedded-k9-center"
    table = pd.DataFrame(bench_store.growth(folder, (16, 32)))
    assert (folder / "knockout.parquet").is_dir() and (folder / "baseline.parquet").is_file()
    assert table.groupby("use").size().eq(2).all() and table["use"].nunique() == 1 + len(bench_store.USES)
    assert table["bytes_a_row"].dropna().between(5, 200).all() and (table["peak_mb"] > 0).all()
    fig, drawn = figures.store_growth(table)
    assert len(fig.axes) == 2 and drawn is table

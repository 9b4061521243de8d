"""The bench of the store, on a few samples. No test here is timed."""

import nbformat
import pandas as pd
import pytest

from analysis_lib import figures
from analysis_lib.reports import bench_store, made_up
from analysis_lib.study import parts


@pytest.fixture
def in_this_process(monkeypatch):
    """The uses run here, on few tasks; this process's memory is not asked for."""
    monkeypatch.setattr(made_up, "TASKS", 2)
    monkeypatch.setattr(bench_store, "alone", bench_store._measured)


def test_every_use_works_on_made_up_samples(tmp_path, monkeypatch, in_this_process):
    monkeypatch.setattr(parts, "largest", lambda table: 10_000)
    monkeypatch.setattr(bench_store, "NOTEBOOKS", ())
    table = pd.DataFrame(bench_store.growth(tmp_path / made_up.DIR, (16, 32)))
    assert (tmp_path / made_up.DIR / "knockout.parquet").is_dir()
    assert (tmp_path / made_up.DIR / "baseline.parquet").is_file()
    assert table.groupby("use").size().eq(2).all() and table["use"].nunique() == 1 + len(bench_store.USES)
    assert table["bytes_a_row"].dropna().between(5, 200).all() and (table["peak_mb"] > 0).all()
    fig, drawn = figures.store_growth(table)
    assert len(fig.axes) == 2 and drawn is table


@pytest.mark.slow
def test_notebooks_are_drawn_from_made_up_samples(tmp_path, monkeypatch, in_this_process):
    monkeypatch.setattr(bench_store, "USES", ())
    monkeypatch.setattr(bench_store, "NOTEBOOKS", ("02", "05"))  # 03 draws from the tables of 02
    table = pd.DataFrame(bench_store.growth(tmp_path / made_up.DIR, (16,)))
    assert table["use"].tolist() == ["fill", "notebook 02", "notebook 05"]
    for number in bench_store.NOTEBOOKS:  # each to its summary
        [file] = tmp_path.glob(f"{number}_*.ipynb")
        assert nbformat.read(file, 4).cells[1].source.startswith("**made/up** on *embedded*, 16 questions")

"""The benchmark of costs, on one small shape. No test here is timed."""

import pytest

from analysis_lib import figures
from analysis_lib.reports import bench


@pytest.fixture(scope="module")
def costs(tiny_vlm):
    vlm = bench.random_model(tiny_vlm, 64, 2, 4)
    return bench.sweep_costs(vlm, bench.random_inputs(vlm, 4, 2, 3), repeats=1)


def test_every_class_has_every_procedure(costs):
    per_class = costs[~costs["edge_sets"].isin(["clean pass", "receipt"])].groupby("edge_sets")["procedure"].apply(set)
    assert set(per_class.index) == {*bench.CLASSES, "all"} and all(
        p == {"exact", "full", "published"} for p in per_class
    )
    assert (costs["seconds"] > 0).all() and (costs["gflop"] > 0).all()
    assert costs.loc[costs["edge_sets"] == "all", "conditions"].eq(11 * 4).all()


def test_exact_counts_fewer_operations_than_full_and_full_fewer_than_published(costs):
    gain = bench.ratios(costs, "gflop")
    assert (gain["full"] > 1).all() and (gain["published"] > gain["full"]).all()
    assert (
        gain.xs("into last", level="edge_sets")["full"].item()
        > gain.xs("cross-frame", level="edge_sets")["full"].item()
    )


def test_operations_are_counted_without_weights(tiny_vlm, costs, monkeypatch):
    import torch

    monkeypatch.setattr(bench, "LARGE", (64, 2, 4))
    vlm = bench.large_model(tiny_vlm, torch.device("meta"))
    counted = bench.counted(vlm, bench.random_inputs(vlm, 4, 2, 3))
    assert counted["seconds"].isna().all() and (counted["gflop"] > 0).all()
    gains = [bench.ratios(rows, "gflop")["published"].to_numpy() for rows in (counted, costs)]
    assert (gains[0] > gains[1]).all()  # the larger tower is part of every published forward


def test_memory_is_counted_without_weights(tiny_vlm, monkeypatch):
    import torch

    monkeypatch.setattr(bench, "LARGE", (64, 2, 4))
    vlm = bench.large_model(tiny_vlm, torch.device("meta"))
    few, many = (bench.counted(vlm, bench.random_inputs(vlm, frames, 16, 3))["gpu_memory_mb"] for frames in (4, 8))
    assert (0 < few).all() and (few < many).all()


def test_the_figure_shows_the_measured_gain(costs):
    import pandas as pd

    shown = pd.concat([costs.assign(layers=12, options=4, frames=n) for n in (4, 8)] + [costs.assign(model="7B")])
    gain = bench.ratios(shown)
    fig, _ = figures.bench(shown, gain)
    low = gain.xs("all", level="edge_sets").drop("7B")["full"].min()
    assert f"takes {low:.0f} to" in fig.legends[0].get_title().get_text().replace("\n", " ")

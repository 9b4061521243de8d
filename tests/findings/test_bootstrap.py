"""Draws of videos against known answers."""

import numpy as np
import pandas as pd
import pytest

from analysis_lib.errors import StudyError
from analysis_lib.findings import bootstrap, stats
from tests.support.videos import clustered, curves


def test_replicates_row_zero_is_the_mean():
    frame = clustered(np.random.default_rng(0)).assign(layer=lambda f: f.sample_id % 3)
    reps = bootstrap.replicates(frame, "value", ["layer"])
    assert np.allclose(reps.iloc[0], frame.groupby("layer").value.mean())
    assert reps.shape == (1 + bootstrap.DRAWS, 3)


def test_replicates_are_the_same_in_every_process():
    frame = clustered(np.random.default_rng(0)).assign(cell="all")
    first = bootstrap.replicates(frame, "value", ["cell"])
    bootstrap._weights.cache_clear()
    assert first.equals(bootstrap.replicates(frame, "value", ["cell"])) and first["all"].nunique() > 100


def test_cells_of_one_video_stay_paired():
    frame = clustered(np.random.default_rng(0), per_video=1)
    both = pd.concat([frame.assign(cell="a"), frame.assign(cell="b", value=frame.value + 2)])
    reps = bootstrap.replicates(both, "value", ["cell"])
    assert np.allclose(reps["b"] - reps["a"], 2)  # the difference is known exactly although both means vary


def test_blocks_take_the_same_draws_as_one(monkeypatch):
    frame = curves(np.random.default_rng(0), n_videos=24)
    frame["task"] = np.where(frame["video"] < 10, "b", "a")
    made = []
    for size in (bootstrap.BLOCK, 24 * 500 + 7, 50):
        monkeypatch.setattr(bootstrap, "BLOCK", size)
        bootstrap._weights.cache_clear()
        made.append(
            (
                bootstrap._weights(24),
                bootstrap.replicates(frame, "value", ["task", "layer"]),
                stats.max_t(frame, "value"),
            )
        )
    bootstrap._weights.cache_clear()
    known = np.random.default_rng(0).multinomial(24, np.full(24, 1 / 24), size=bootstrap.DRAWS)
    for weights, reps, tested in made:
        assert (weights[0] == 1).all() and (weights[1:] == known).all()
        pd.testing.assert_frame_equal(reps, made[0][1], rtol=1e-12)
        pd.testing.assert_frame_equal(tested, made[0][2])


def test_cells_stand_in_the_order_of_their_first_videos():
    frame = clustered(np.random.default_rng(0), n_videos=6).assign(
        task=lambda f: np.where(f.video < 2, "b", "a"), layer=1
    )
    assert [*bootstrap.replicates(frame, "value", ["layer", "task"])] == [(1, "b"), (1, "a")]
    assert [*bootstrap.replicates(frame, "value", ["task"])] == ["a", "b"]


def test_every_task_weighs_the_same():
    frame = pd.DataFrame(
        {"video": range(12), "task": ["a"] * 10 + ["b"] * 2, "layer": 1, "value": [0.0] * 10 + [1.0] * 2}
    )
    reps = bootstrap.across_tasks(bootstrap.replicates(frame, "value", ["task", "layer"]))
    assert reps.loc[0, 1] == 0.5


def test_an_empty_table_is_named():
    with pytest.raises(StudyError, match="no rows to summarise"):
        bootstrap.replicates(pd.DataFrame({"video": [], "x": []}), "x", [])


def test_groups_are_numbered_as_a_groupby_does_whatever_the_order_of_levels():
    rng = np.random.default_rng(0)
    levels = [["v9", "v1", "unused", "v5"], [3, 1, 2], ["b", "a"]]  # neither sorted nor all in use
    codes = [rng.choice([0, 1, 3], 40), rng.integers(0, 3, 40), rng.integers(0, 2, 40)]
    index = pd.MultiIndex(levels, codes, names=["video", "layer", "task"])
    rows = pd.DataFrame({"total": rng.random(40)}, index=index)
    for by in (["video"], ["layer", "task"], ["task", "layer"]):
        place, groups = bootstrap.numbered(rows, by)
        assert (place == rows.groupby(by).ngroup()).all() and groups.equals(rows.groupby(by).size().index)

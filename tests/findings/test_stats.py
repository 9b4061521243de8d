"""Intervals and tests against known answers, and a small check that they cover what they promise."""

import numpy as np
import pandas as pd
import pytest

from analysis_lib.errors import StudyError
from analysis_lib.findings import bootstrap, stats
from tests.support.videos import clustered, curves


@pytest.mark.slow
def test_bootstrap_covers_the_true_mean_and_rows_alone_do_not():
    rng = np.random.default_rng(0)
    hits = {"video": 0, "sample_id": 0}
    for _ in range(300):
        frame = clustered(rng).assign(cell="all")
        for unit in hits:
            reps = bootstrap.replicates(frame.assign(video=frame[unit]), "value", ["cell"])
            _, low, high = stats.interval(reps["all"])
            hits[unit] += low <= 0 <= high
    assert 0.90 <= hits["video"] / 300 <= 0.98
    assert hits["sample_id"] / 300 < 0.85  # what treating the rows as independent would claim as 95 %


def test_no_spread_is_not_certainty():
    frame = pd.DataFrame({"video": range(20), "sample_id": range(20), "task": "t", "correct": True})
    row = stats.mean_interval(frame, "correct", ["task"]).iloc[0]
    assert row["mean"] == row["high"] == 1 and row["low"] == pytest.approx(0.025 ** (1 / 20))


def test_mean_interval_counts_samples_and_videos():
    frame = clustered(np.random.default_rng(0), n_videos=10, per_video=3).assign(task="t")
    row = stats.mean_interval(frame, "value", ["task"]).iloc[0]
    assert (row["n_samples"], row["n_videos"], row["task"]) == (30, 10, "t") and row["low"] < row["mean"] < row["high"]


def test_task_intervals_add_the_mean_of_tasks():
    frame = clustered(np.random.default_rng(0)).assign(task=lambda f: np.where(f.video < 25, "a", "b"), layer=1)
    rows = stats.task_intervals(frame, "value", ["layer"]).set_index("task")
    assert rows.loc[stats.MEAN_OF_TASKS, "mean"] == pytest.approx(rows.loc[["a", "b"], "mean"].mean())
    assert rows.loc[stats.MEAN_OF_TASKS, "n_samples"] == rows.loc[["a", "b"], "n_samples"].sum()
    assert len(rows) == 3 and len(stats.task_intervals(frame[frame.task == "a"], "value", ["layer"])) == 1


def test_halves_of_the_videos_do_not_move_when_videos_are_added():
    frame = pd.DataFrame({"video": [f"v{i}" for i in range(200)]})
    first, few = stats.split_videos(frame, "selection"), stats.split_videos(frame.iloc[:50], "selection")
    assert set(few.video) <= set(first.video) and 70 < len(first) < 130
    assert len(first) + len(stats.split_videos(frame, "evaluation")) == 200


@pytest.mark.parametrize(("lost", "gained", "p"), [(0, 0, 1.0), (5, 0, 2 / 32), (1, 9, 22 / 1024), (3, 3, 1.0)])
def test_mcnemar_known_answers(lost, gained, p):
    before = [True] * lost + [False] * gained + [True] * 4
    after = [False] * lost + [True] * gained + [True] * 4
    found = stats.mcnemar(before, after)
    assert (found.lost, found.gained) == (lost, gained) and found.p == pytest.approx(p)


def test_max_t_keeps_the_error_of_the_whole_curve():
    rng = np.random.default_rng(0)
    false = sum((stats.max_t(curves(rng), "value").p <= 0.05).any() for _ in range(200))
    assert false / 200 <= 0.09


def test_max_t_finds_the_layer_that_moves():
    rng = np.random.default_rng(1)
    found = stats.max_t(curves(rng, shift=[0, 0, 3, 0, 0, 0, 0, 0]), "value").set_index("layer").p
    assert found[3] <= 0.01 and (found > 0.05).sum() >= 6


def test_max_t_with_a_point_where_nothing_happens():
    frame = curves(np.random.default_rng(0))
    frame.loc[frame.layer == 8, "value"] = 0.0
    assert stats.max_t(frame, "value").set_index("layer").p[8] == 1


def test_one_video_has_no_test():
    assert stats.max_t(curves(np.random.default_rng(0), n_videos=1), "value").p.isna().all()


def test_max_t_refuses_holes():
    with pytest.raises(StudyError, match="finish the sweep"):
        stats.max_t(curves(np.random.default_rng(0)).iloc[1:], "value")


def test_holm_known_answer():
    assert np.allclose(stats.holm(pd.Series([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])

"""Curves hold what their tables say, and curves that share a figure differ without colour."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import planted
import pytest

from analysis_lib import figures
from analysis_lib.figures.style import STYLE
from analysis_lib.findings import stats

TASKS = {*planted.TASKS, stats.MEAN_OF_TASKS}


@pytest.fixture(scope="module")
def base():
    return planted.baseline(np.random.default_rng(0), n=8, accuracy=0.9)


@pytest.fixture(scope="module")
def knock(base):
    return planted.knockout(np.random.default_rng(1), base)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_table_has_intervals_counts_and_clipped_windows(base, knock):
    fig, table = figures.video_question_last(knock, base, "Title")
    assert set(table.edge_set) == {"video->question", "video->last", "question->last", "last->last"}
    assert (table.low <= table["mean"]).all() and (table["mean"] <= table.high).all() and table.p.between(0, 1).all()
    assert set(table.loc[table.clipped, "layer"]) == {1, 12}
    assert set(table.task) == TASKS and len(fig.axes) == len(TASKS)


def test_panels_draw_the_means_of_the_table(base, knock):
    fig, table = figures.cross_frame({"video model": knock[knock.edge_set == "cross-frame"]}, base, "Title")
    part = table[(table.task == "action_antonym") & (table.series == "video model")]
    drawn = [line.get_ydata() for line in fig.axes[0].lines]
    assert any(len(y) == 12 and np.allclose(y, part["mean"]) for y in drawn)
    assert fig.legends[0].get_title().get_text() == "Title" and "(n = " in fig.axes[0].get_title(loc="left")
    shaded = fig.axes[0].patches[0].get_bbox()
    assert (shaded.x0, shaded.x1) == (0.5, 6.5)  # the first half of the layers


def test_one_task_has_one_panel_and_all_edge_sets(base, knock):
    fig, table = figures.knockout_curves(knock[knock.task == "object_count"], base, "t")
    assert len(fig.axes) == 1 and set(table.edge_set) == set(planted.BUMPS)


def test_a_curve_is_the_same_beside_others_and_alone(base, knock):
    fig, whole = figures.knockout_curves(knock, base, "t")
    alone = figures.knockout_curves(knock, base, "t", ("cross-frame",))[1]
    beside = whole[whole["edge_set"] == "cross-frame"].reset_index(drop=True)
    pd.testing.assert_frame_equal(beside, alone, check_exact=True)
    assert len(fig.axes) == len(TASKS) and len(fig.axes[0].lines) > len(planted.BUMPS)


@pytest.mark.parametrize(
    ("draw", "edge_sets"),
    [
        (lambda *tables: figures.video_question_last(*tables, "t"), 4),
        (lambda *tables: figures.options_to_last(*tables, "t"), 3),
        (figures.to_true_option, 3),
    ],
)
def test_curves_that_share_a_figure_differ_without_colour(base, knock, draw, edge_sets):
    _, table = draw(knock, base)
    names = set(table["edge_set"])
    assert len({STYLE[name][:2] for name in names}) == len(names) == edge_sets


def test_every_edge_set_has_a_style():
    assert STYLE["video model"][:2] != STYLE["image model"][:2] and set(planted.BUMPS) <= set(STYLE)


def test_the_answer_is_in_percent(base):
    fig, found = figures.answer_by_layer(planted.emergence(np.random.default_rng(2), base), base, "t")
    last = found[(found.layer == 12) & (found.series == "true option")]
    assert (last["mean"] > 80).all() and len(fig.axes) == len(TASKS)


def test_windows_have_a_panel_each(base):
    rng, names = np.random.default_rng(3), ("cross-frame", "question->last")
    spans = {k: lambda i, k=k: (max(1, i - k // 2), min(12, i + k // 2)) for k in (1, 3, 5)}
    parts = [planted.knockout(rng, base, names, first_last=span).assign(window=k) for k, span in spans.items()]
    fig, table = figures.window_sizes(pd.concat(parts), base)
    assert table[table.clipped].groupby("window").layer.unique().map(list).to_dict() == {3: [1, 12], 5: [1, 2, 11, 12]}
    titles = [ax.get_title(loc="left").split(" (n")[0] for ax in fig.axes]
    assert titles == ["Window of 1 layer", "Window of 3 layers", "Window of 5 layers"]
    assert fig.legends[0].get_title().get_text() == "Three routes, cut in windows of 1, 3, 5 layers"
    for readers in ("later", "other"):
        fig, _ = figures.window_sizes(pd.concat(parts), base, *[readers] * (readers == "other"))
        assert f"frame ↛ {readers} frames" in [text.get_text() for text in fig.legends[0].get_texts()]


@pytest.fixture(scope="module")
def halves(base):
    """Answers are lost if any of layers 3 to 5 is cut; `up` cuts 1..l, `down` cuts l..12."""
    rng = np.random.default_rng(4)
    up = planted.knockout(rng, base, ["cross-frame"], first_last=lambda i: (1, i))
    down = planted.knockout(rng, base, ["cross-frame"], first_last=lambda i: (i, 12))
    base = base.set_index("sample_id")
    for part in (up, down):
        lost = (part.first_layer <= 5) & (part.last_layer >= 3)
        part["correct"] = ~lost & base.loc[part.sample_id, "correct"].to_numpy()
    return up, down


def test_accuracy_falls_where_the_border_passes_the_layers_that_count(base, halves):
    fig, table = figures.halves(*halves, base, "t")
    every = table[table.task == stats.MEAN_OF_TASKS].set_index(["series", "layer"])
    level = 100 * base.groupby("task").correct.mean().mean()
    assert every["untouched"].unique() == pytest.approx([level]) and every["chance"].unique() == pytest.approx([35.0])
    assert every.loc["from layer 1", "mean"].tolist() == pytest.approx([level] * 2 + [0] * 10)
    assert every.loc["to last layer", "mean"].tolist() == pytest.approx([0] * 5 + [level] * 7)
    assert len(fig.axes) == len(TASKS) and {":", "-"} <= {line.get_linestyle() for line in fig.axes[0].lines}

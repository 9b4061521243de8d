"""Maps of the finer cuts find what was planted, test all cells together, and have titles from the numbers."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import planted
import pytest
from matplotlib.colors import to_rgb

from analysis_lib import figures
from analysis_lib.errors import StudyError
from analysis_lib.figures import maps, style
from analysis_lib.findings import stats

TASKS = {*planted.TASKS, stats.MEAN_OF_TASKS}


@pytest.fixture(scope="module")
def base():
    return planted.baseline(np.random.default_rng(0), n=8, accuracy=0.9)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def cuts(base, cells, drop, seed=1):
    """One row per sample and cell (a dict of columns); `drop(cell)` is its mean drop in %."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {"task": row.task, "sample_id": row.sample_id, **cell, "relative_change": rng.normal(-drop(cell), 2)}
        for row in base.itertuples()
        for cell in cells
    )


@pytest.fixture(scope="module")
def pairs(base):
    """Frame 5 needs frame 2; a joint cut costs four times as much as its pairs do alone."""
    every = [(q, k) for q in range(1, 9) for k in range(1, q)]
    alone = [
        {"edge_set": f"frame {k}->frame {q}", "query_frame": q, "key_frame": k, "distance": q - k} for q, k in every
    ]
    joint = [{"edge_set": f"cross-frame@{d}", "query_frame": 0, "key_frame": 0, "distance": d} for d in range(1, 8)]
    rows = [{"edge_set": "", "query_frame": q, "key_frame": 0, "distance": 0} for q in range(2, 9)]
    rows += [{"edge_set": "", "query_frame": 0, "key_frame": k, "distance": 0} for k in range(8)]
    whole = cuts(base, rows, lambda c: 40 if (c["query_frame"], c["key_frame"]) == (0, 0) else 0, seed=3)
    hit = cuts(base, alone, lambda c: 30 if (c["query_frame"], c["key_frame"]) == (5, 2) else 0)
    return pd.concat([hit, cuts(base, joint, lambda c: 24 if c["distance"] == 3 else 0, seed=2), whole])


@pytest.fixture(scope="module")
def pair_maps(base, pairs):
    return figures.frame_pairs(pairs, base)


@pytest.mark.parametrize("readers", ["later", "other"])
def test_the_scale_says_which_frames_read(base, pairs, readers):
    fig, _ = figures.frame_pairs(pairs, base, readers)
    assert fig.axes[-1].get_ylabel().startswith(f"frame ↛ {readers} frames: ")


@pytest.fixture(scope="module")
def heads(base):
    cells = [
        {"edge_set": name, "layer": layer, "head": head}
        for name, layer, head in itertools.product(("true_option->last", "question->last"), range(1, 7), (1, 2))
    ]
    return cuts(base, cells, lambda c: 20 if (c["layer"], c["head"]) == (4, 2) else 0)


def test_the_planted_pair_is_the_one_that_differs_from_zero(pair_maps):
    fig, table = pair_maps
    assert set(table.task) == TASKS and len(table) == (28 + 15) * len(TASKS)
    every = table[table.task == stats.MEAN_OF_TASKS].set_index(["query_frame", "key_frame"])
    assert every.loc[(0, 0), "mean"] == pytest.approx(-40, abs=1)
    every = every.drop((0, 0))
    assert every["mean"].idxmin() == (5, 2) and every.loc[(5, 2), "mean"] == pytest.approx(-30, abs=1)
    assert every.loc[(5, 2), "p"] < 0.001 and (every["p"] < 0.05).sum() <= 2
    assert (table.low <= table["mean"]).all() and (table["mean"] <= table.high).all()
    title = fig.legends[0].get_title().get_text().replace("\n", " ")
    assert title.startswith("The pair of frames that matters most: frame 5 reading frame 2 (drop of ")


def test_only_right_answers_enter_the_maps(base, pair_maps):
    _, table = pair_maps
    counts = table.groupby("task").n_samples.max().drop(stats.MEAN_OF_TASKS).to_dict()
    assert counts == base[base.correct].groupby("task").size().to_dict()


def test_a_pair_is_drawn_where_it_belongs(pair_maps):
    fig, _ = pair_maps
    panels = [ax for ax in fig.axes if ax.texts]
    assert len(panels) == len(TASKS) and "(n = " in panels[0].get_title(loc="left")
    (hit,) = [text for text in panels[-1].texts if text.get_text() in ("−29", "−30", "−31")]
    rows = [label.get_text() for label in panels[-1].get_yticklabels()]
    columns = [label.get_text() for label in panels[-1].get_xticklabels()]
    assert rows[-1] == columns[-1] == "all"
    column, row = (int(place) for place in hit.get_position())
    assert (rows[row], columns[column]) == ("5", "2") and hit.get_fontweight() == "bold"


def test_distances_compare_the_joint_cut_with_its_pairs(base, pairs):
    fig, table = figures.frame_distance(pairs, base)
    every = table[table.task == stats.MEAN_OF_TASKS].set_index(["series", "distance"])["mean"]
    assert every["all pairs", 3] == pytest.approx(-24, abs=1) and every["one pair", 3] == pytest.approx(-6, abs=1)
    assert every.drop([("all pairs", 3), ("one pair", 3)]).abs().max() < 1
    part = table[(table.task == "action_antonym") & (table.series == "all pairs")]
    assert any(np.allclose(line.get_ydata(), part["mean"]) for line in fig.axes[0].lines if len(line.get_ydata()) == 7)


def test_each_edge_set_has_its_own_map_of_heads(base, heads):
    fig, table = figures.heads_to_last(heads, base[base.task.isin(["action_antonym", "object_count"])])
    assert len(table) == 2 * 12 * 3  # edge sets, heads, two tasks and their mean
    title = fig.legends[0].get_title().get_text().replace("\n", " ")
    assert title.startswith("The single head that matters most: head 2 of layer 4, ") and "↛ last token" in title
    panels = [ax for ax in fig.axes if ax.texts]
    assert len(panels) == 2 * 3 and {len(ax.texts) for ax in panels} == {12}
    low, high = panels[0].get_ylim()
    assert low < high  # heat maps start at the top; here deep layers are on top


def test_large_maps_have_dots_for_numbers(base):
    cells = [{"edge_set": "video->last", "layer": y, "head": x} for y in range(1, 17) for x in range(1, 9)]
    rows = cuts(base, cells, lambda c: 20 if (c["layer"], c["head"]) == (9, 3) else 0)
    panel = [ax for ax in figures.heads_video_last(rows, base)[0].axes if ax.texts][-1]
    assert "•" in {text.get_text() for text in panel.texts} <= {"•", ""}


def test_nothing_sure_is_said_to_be_so(base):
    cells = [{"edge_set": "video->last", "layer": y, "head": 1} for y in range(1, 7)]
    flat, rising = (figures.heads_video_last(cuts(base, cells, lambda c, drop=drop: drop), base)[0] for drop in (0, -9))
    titles = [fig.legends[0].get_title().get_text().replace("\n", " ") for fig in (flat, rising)]
    assert all(title.startswith("No single head alone costs the answer 2") for title in titles)
    assert "the largest drop is 0.0" in titles[1]


def test_one_video_has_no_test_and_no_mean_of_tasks(base):
    one = base[base.sample_id == base[base.correct].sample_id.iloc[0]]
    cells = [{"edge_set": "video->last", "layer": y, "head": 1} for y in range(1, 7)]
    fig, table = figures.heads_video_last(cuts(one, cells, lambda c: 50), one)
    assert table.p.isna().all() and len(table) == 6
    assert fig.legends[0].get_title().get_text().startswith("No single head")


def test_no_right_answer_is_refused(base, heads):
    with pytest.raises(StudyError, match="none of .* samples here is answered correctly"):
        figures.heads_to_last(heads, base.assign(correct=False))


def test_drops_have_the_colour_of_their_pathway():
    assert {"all pairs", "one pair", "from layer 1", "to last layer"} <= set(style.STYLE)
    assert maps._colours("question->last")(0.0)[:3] == pytest.approx(to_rgb(style.ORANGE), abs=0.02)

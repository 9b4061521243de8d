"""Maps of the finer cuts find what was planted, test all cells together, and have titles from the numbers."""

import itertools

import numpy as np
import pandas as pd
import planted
import pytest

from analysis_lib.errors import StudyError
from analysis_lib.figures import maps
from analysis_lib.figures import style as plots
from analysis_lib.findings import stats

TASKS = {*planted.TASKS, stats.MEAN_OF_TASKS}


@pytest.fixture(scope="module")
def base():
    return planted.baseline(np.random.default_rng(0), n=8, accuracy=0.9)


@pytest.fixture(autouse=True)
def closed():
    yield
    plots.plt.close("all")


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
def heads(base):
    cells = [
        {"edge_set": name, "layer": layer, "head": head}
        for name, layer, head in itertools.product(("true_option->last", "question->last"), range(1, 7), (1, 2))
    ]
    return cuts(base, cells, lambda c: 20 if (c["layer"], c["head"]) == (4, 2) else 0)


def test_the_planted_pair_is_the_one_that_differs_from_zero(base, pairs):
    table = maps.pair_table(pairs, base)
    assert set(table.task) == TASKS and len(table) == (28 + 15) * len(TASKS)
    every = table[table.task == stats.MEAN_OF_TASKS].set_index(["query_frame", "key_frame"])
    assert every.loc[(0, 0), "mean"] == pytest.approx(-40, abs=1) and len(maps.single_pairs(every.reset_index())) == 28
    every = every.drop((0, 0))
    assert every["mean"].idxmin() == (5, 2) and every.loc[(5, 2), "mean"] == pytest.approx(-30, abs=1)
    assert every.loc[(5, 2), "p"] < 0.001 and (every["p"] < 0.05).sum() <= 2
    assert (table.low <= table["mean"]).all() and (table["mean"] <= table.high).all()
    assert maps.strongest(maps.single_pairs(table), "pair", "{query_frame} reads {key_frame}").startswith(
        "The pair that matters most: 5 reads 2 (drop of "
    )


def test_only_right_answers_enter_the_maps(base, pairs):
    table = maps.pair_table(pairs, base)
    counts = table.groupby("task").n_samples.max().drop(stats.MEAN_OF_TASKS).to_dict()
    assert counts == base[base.correct].groupby("task").size().to_dict()


def test_a_pair_is_drawn_where_it_belongs(base, pairs):
    table = maps.pair_table(pairs, base)
    fig = maps.pair_figure(table, "Title")
    panels = [ax for ax in fig.axes if ax.texts]
    assert len(panels) == len(TASKS) and "(n = " in panels[0].get_title(loc="left")
    (hit,) = [text for text in panels[-1].texts if text.get_text() in ("−29", "−30", "−31")]
    rows = [label.get_text() for label in panels[-1].get_yticklabels()]
    columns = [label.get_text() for label in panels[-1].get_xticklabels()]
    assert rows[-1] == columns[-1] == "all"
    column, row = (int(place) for place in hit.get_position())
    assert (rows[row], columns[column]) == ("5", "2") and hit.get_fontweight() == "bold"
    assert fig.legends[0].get_title().get_text() == "Title"


def test_distances_compare_the_joint_cut_with_its_pairs(base, pairs):
    table = maps.distance_table(pairs, base)
    every = table[table.task == stats.MEAN_OF_TASKS].set_index(["series", "distance"])["mean"]
    assert every["all pairs", 3] == pytest.approx(-24, abs=1) and every["one pair", 3] == pytest.approx(-6, abs=1)
    assert every.drop([("all pairs", 3), ("one pair", 3)]).abs().max() < 1
    fig = maps.distance_figure(table, "Title")
    part = table[(table.task == "action_antonym") & (table.series == "all pairs")]
    assert any(np.allclose(line.get_ydata(), part["mean"]) for line in fig.axes[0].lines if len(line.get_ydata()) == 7)


def test_each_edge_set_has_its_own_map_of_heads(base, heads):
    table = maps.head_table(heads, base)
    assert len(table) == 2 * 12 * len(TASKS)
    fig = maps.head_figure(table, maps.strongest(table, "head", "{head} of layer {layer}, {words}"))
    title = fig.legends[0].get_title().get_text().replace("\n", " ")
    assert title.startswith("The head that matters most: 2 of layer 4, ") and "↛ last token" in title
    panels = [ax for ax in fig.axes if ax.texts]
    assert len(panels) == 2 * len(TASKS) and {len(ax.texts) for ax in panels} == {12}
    low, high = panels[0].get_ylim()
    assert low < high  # heat maps start at the top; here deep layers are on top


def test_large_maps_have_dots_for_numbers(base):
    cells = [{"edge_set": "video->last", "layer": y, "head": x} for y in range(1, 17) for x in range(1, 9)]
    table = maps.head_table(cuts(base, cells, lambda c: 20 if (c["layer"], c["head"]) == (9, 3) else 0), base)
    panel = [ax for ax in maps.head_figure(table, "t").axes if ax.texts][-1]
    assert "•" in {text.get_text() for text in panel.texts} <= {"•", ""}


def test_nothing_sure_is_said_to_be_so(base):
    cells = [{"edge_set": "video->last", "layer": y, "head": 1} for y in range(1, 7)]
    flat = maps.head_table(cuts(base, cells, lambda c: 0), base)
    assert maps.strongest(flat, "head", "{head} of layer {layer}").startswith("No head alone costs the answer 2")
    rising = flat.assign(mean=flat["mean"].abs() + 1)
    assert "the largest drop is 0.0" in maps.strongest(rising, "head", "{layer}")


def test_one_video_has_no_test_and_no_mean_of_tasks(base):
    one = base[base.sample_id == base[base.correct].sample_id.iloc[0]]
    cells = [{"edge_set": "video->last", "layer": y, "head": 1} for y in range(1, 7)]
    table = maps.head_table(cuts(one, cells, lambda c: 50), one)
    assert table.p.isna().all() and len(table) == 6
    assert maps.strongest(table, "head", "{layer}").startswith("No head")
    maps.head_figure(table, "t")


def test_no_right_answer_is_refused(base, heads):
    with pytest.raises(StudyError, match="none of .* samples here is answered correctly"):
        maps.head_table(heads, base.assign(correct=False))


def test_windows_have_a_panel_each(base):
    rng = np.random.default_rng(3)
    names = ("cross-frame", "question->last")
    widths = pd.concat([
        planted.knockout(rng, base, names, first_last=lambda i, k=k: (max(1, i - k // 2), min(12, i + k // 2))).assign(
            window=k
        )
        for k in (1, 3, 5)
    ])  # fmt: skip
    table = maps.width_table(widths, base)
    assert table[table.clipped].groupby("window").layer.unique().map(list).to_dict() == {3: [1, 12], 5: [1, 2, 11, 12]}
    fig = maps.width_figure(table, "t")
    titles = [ax.get_title(loc="left").split(" (n")[0] for ax in fig.axes]
    assert titles == ["Window of 1 layer", "Window of 3 layers", "Window of 5 layers"]


@pytest.fixture(scope="module")
def halves(base):
    """Answers are lost if any of layers 3 to 5 is cut; `up` cuts 1..l, `down` cuts l..12."""
    rng = np.random.default_rng(4)
    up = planted.knockout(rng, base, ["cross-frame"], first_last=lambda i: (1, i))
    down = planted.knockout(rng, base, ["cross-frame"], first_last=lambda i: (i, 12))
    base = base.set_index("sample_id")
    for part in (up, down):
        lost = (part.first_layer <= 5) & (part.last_layer >= 3)
        part["prediction"] = np.where(lost, "X", base.loc[part.sample_id, "prediction"])
        part["correct"] = ~lost & base.loc[part.sample_id, "correct"].to_numpy()
    return up, down


def test_accuracy_falls_where_the_border_passes_the_layers_that_count(base, halves):
    table = maps.accuracy_table(*halves, base)
    every = table[table.task == stats.MEAN_OF_TASKS].set_index(["series", "layer"])
    level = 100 * base.groupby("task").correct.mean().mean()
    assert every["untouched"].unique() == pytest.approx([level]) and every["chance"].unique() == pytest.approx([35.0])
    assert every.loc["from layer 1", "mean"].tolist() == pytest.approx([level] * 2 + [0] * 10)
    assert every.loc["to last layer", "mean"].tolist() == pytest.approx([0] * 5 + [level] * 7)
    fig = maps.accuracy_figure(table, "t")
    assert len(fig.axes) == len(TASKS) and {":", "-"} <= {line.get_linestyle() for line in fig.axes[0].lines}


def test_half_table_counts_lost_answers(base, halves):
    table = maps.half_table(*halves, base)
    assert set(table.index.get_level_values("layers")) == {"1 to 6", "7 to 12"}
    assert (table.xs("1 to 6", level="layers")["mean"] == 100).all()
    assert (table.xs("7 to 12", level="layers")["mean"] == 0).all()
    assert (table["high"] > 0).all()  # never seen in a few videos is not never


def test_every_pathway_of_a_map_has_a_colour(base, heads):
    assert {"all pairs", "one pair", "from layer 1", "to last layer"} <= set(plots.STYLE)
    assert maps._colours("question->last")(0.0)[:3] == pytest.approx(
        plots.plt.matplotlib.colors.to_rgb(plots.ORANGE), abs=0.02
    )

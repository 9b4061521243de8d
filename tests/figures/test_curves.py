"""Figures hold what their tables say; files come out the same twice; every pathway has its own look."""

import numpy as np
import planted
import pytest

from analysis_lib.errors import StudyError
from analysis_lib.figures import bars as charts
from analysis_lib.figures import pictures
from analysis_lib.figures import style as plots
from analysis_lib.findings import paper as findings
from analysis_lib.findings import stats


@pytest.fixture(scope="module")
def base():
    return planted.baseline(np.random.default_rng(0), n=8, accuracy=0.9)


@pytest.fixture(scope="module")
def knock(base):
    return planted.knockout(np.random.default_rng(1), base)


@pytest.fixture(scope="module")
def table(base, knock):
    return plots.knockout_table(knock[knock.edge_set.isin(pictures.ROUTES)], base)


@pytest.fixture(autouse=True)
def closed():
    yield
    plots.plt.close("all")


def test_table_has_intervals_counts_and_clipped_windows(table):
    assert (table.low <= table["mean"]).all() and (table["mean"] <= table.high).all() and table.p.between(0, 1).all()
    assert set(table.loc[table.clipped, "layer"]) == {1, 12}
    assert set(table.task) == {*planted.TASKS, stats.MEAN_OF_TASKS}


def test_panels_draw_the_means_of_the_table(table):
    fig = plots.curve_panels(table, "Title", "change (%)", shade=plots.half(table))
    part = table[(table.task == "action_antonym") & (table.edge_set == "cross-frame")]
    drawn = [line.get_ydata() for line in fig.axes[0].lines]
    assert any(len(y) == 12 and np.allclose(y, part["mean"]) for y in drawn)
    assert fig.legends[0].get_title().get_text() == "Title" and "(n = " in fig.axes[0].get_title(loc="left")


def test_one_task_has_one_panel(base, knock):
    one = plots.knockout_table(knock[(knock.task == "object_count") & (knock.edge_set == "cross-frame")], base)
    assert len(plots.curve_panels(one, "t", "y").axes) == 1


def test_curves_that_share_a_figure_differ_without_colour():
    groups = [plots.STYLE.keys() & set(group) for group in (
        ("video model", "image model"), ("video->question", "video->last", "question->last", "last->last"),
        ("question_only->last", "true_option->last", "false_options->last"),
        ("video->question_only", "question_only->true_option", "video->true_option"),
    )]  # fmt: skip
    for group in groups:
        assert len({plots.STYLE[name][:2] for name in group}) == len(group)
    assert set(planted.BUMPS) <= set(plots.STYLE)


def test_saved_files_are_the_same_twice(tmp_path, table, capsys):
    for folder in ("a", "b"):
        fig = plots.curve_panels(table, "Title", "y")
        plots.save_figure(fig, "01_x", table, "What is seen.", model="models/tiny", out=str(tmp_path / folder))
    files = sorted(p.name for p in (tmp_path / "a/figures/tiny").iterdir())
    assert files == ["01_x.csv", "01_x.pdf", "01_x.png"]
    for name in files:
        assert (tmp_path / "a/figures/tiny" / name).read_bytes() == (tmp_path / "b/figures/tiny" / name).read_bytes()


def test_a_place_that_cannot_be_written_is_named(tmp_path, table):
    (tmp_path / "figures").write_text("in the way")
    with pytest.raises(StudyError, match="name another folder with --out"):
        plots.save_figure(plots.curve_panels(table, "t", "y"), "x", table, "alt", model="m", out=str(tmp_path))


def test_emergence_table_is_in_percent(base):
    found = plots.emergence_table(planted.emergence(np.random.default_rng(2), base), base)
    last = found[(found.layer == 12) & (found.series == "true option")]
    assert (last["mean"] > 80).all()
    plots.curve_panels(found, "t", "probability (%)", series="series")


def test_charts_draw(base, knock):
    rng = np.random.default_rng(3)
    accuracy = charts.accuracy_table(base, planted.controls(rng, base))
    assert accuracy.set_index(["task", "control"]).loc[("object_count", "text only"), "chance"] == 25
    charts.accuracy_figure(accuracy, "t")
    lens = planted.lens(rng, base)
    kinds = charts.keyword_table(lens, base)
    assert kinds.groupby("kind").share.sum().round(9).eq(1).all()
    words = charts.word_table(lens, base)
    assert words.keyword.nunique() == 5 and words.drop_duplicates("place").keyword.iloc[0] == "red"
    charts.keyword_figure(kinds, words, "t")


def test_pathway_chart_states_the_edges(base):
    found = charts.pathway_table(planted.pathway(np.random.default_rng(4), base), base)
    assert found.groupby("pathway").edges_kept.first().round().to_dict() == {"effective": 42, "full": 100, "random": 42}
    fig = charts.pathway_figure(found, 35.0, "t")
    assert "42 %" in {text.get_text() for text in fig.axes[1].texts}


def test_a_closed_route_has_no_bar():
    found = charts.range_table({"measured": {"cross_frame": (1, 6)}})
    fig = charts.range_figure(found, 12, "t")
    assert len(fig.axes[0].patches) == 1 and [t.get_text() for t in fig.axes[0].texts][1:] == ["closed"] * 2


def test_flow_shows_the_verdicts(base, knock, table):
    curve = plots.emergence_table(planted.emergence(np.random.default_rng(2), base), base)
    flow = pictures.flow_table(table, curve)
    assert flow.groupby("series").layer.count().eq(12).all() and flow["mean"].max() > 30
    claim = findings.cross_frame_early(knock, base)
    claims = dict.fromkeys([*pictures.ROUTES, "true option"], claim)
    fig = pictures.flow_figure(flow, claims, np.zeros((8, 4, 4, 3), np.uint8), "Which?", "B", title="t")
    assert claim.verdict in fig.axes[1].get_title(loc="left")


def test_words_prefer_keywords():
    words = np.full((6, 2, 1, 1), "the", object)
    words[0] = " red"
    frames = np.zeros((2, 4, 4, 3), np.uint8)
    fig = pictures.words_figure(frames, words, {"red": "spatial"}, title="t")
    assert [ax.texts[0].get_text() for ax in fig.axes] == ["red"] * 2 + ["the"] * 4


def test_attention_maps_share_a_scale():
    maps = {"open": np.full((4, 2, 1, 1), 0.2), "cut": np.full((4, 2, 1, 1), 0.1)}
    fig = pictures.attention_figure(np.zeros((2, 4, 4, 3), np.uint8), maps, title="t", layers=(2, 3))
    assert {image.norm.vmax for ax in fig.axes for image in ax.images[1:]} == {0.2}


def test_verdicts_of_two_models(base, knock):
    from analysis_lib.findings import claims

    found = claims.table([findings.cross_frame_early(knock, base)])
    both = plots.pd.concat([found.assign(model="a"), found.assign(model="b", verdict="undecided")])
    fig = charts.verdict_figure(both, "t")
    assert {"reproduced", "undecided"} <= {text.get_text() for text in fig.axes[0].texts}


def test_picture_tables_hold_every_number():
    words = np.array([[[["red", "up"]]], [[["the", "red"]]]])
    table = pictures.words_table(words, {"red": "spatial"})
    assert len(table) == 4 and list(table.kind) == ["spatial", "", "", "spatial"]
    attention = pictures.attention_table({"open": np.full((2, 3, 2, 2), 0.1)})
    assert len(attention) == 6 and np.allclose(attention.attention, 0.4)


def test_the_word_to_follow_is_temporal_if_there_is_one():
    kinds = {"grows": "temporal", "shrinks": "temporal", "red": "spatial"}
    assert pictures.query_word("What does the red one do? It grows. It shrinks.", kinds) == "grows"
    assert pictures.query_word("Which way is it?", {}) == "Which"

"""Bars of single numbers: accuracies, keywords, pathways and verdicts."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import planted
import pytest

from analysis_lib import figures, findings


@pytest.fixture(scope="module")
def base():
    return planted.baseline(np.random.default_rng(0), n=8, accuracy=0.9)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_accuracy_stands_beside_chance(base):
    _, table = figures.accuracy(base, planted.controls(np.random.default_rng(3), base), "t")
    assert table.set_index(["task", "control"]).loc[("object_count", "text only"), "chance"] == 25


def test_keywords_and_words_are_shares_of_their_hits(base):
    fig, table = figures.keywords(planted.lens(np.random.default_rng(3), base), base, "t")
    assert table.groupby("kind").share.sum().round(9).eq(1).all()
    words = [label.get_text() for label in fig.axes[1].get_yticklabels()]
    assert len(words) == 5 and words[0] == "red"  # shallow words first
    bold = [label.get_text() for label in fig.axes[1].get_yticklabels() if label.get_fontweight() == "bold"]
    assert set(bold) == {"grows", "up"}


def test_pathways_state_their_edges(base):
    fig, table = figures.pathways(planted.pathway(np.random.default_rng(4), base), base, "t")
    assert table.groupby("pathway").edges_kept.first().round().to_dict() == {"effective": 42, "full": 100, "random": 42}
    assert "42 %" in {text.get_text() for text in fig.axes[1].texts}


def test_a_closed_route_has_no_bar():
    fig, table = figures.open_layers({"measured": {"cross_frame": (1, 6)}}, 12)
    assert len(fig.axes[0].patches) == 1 and [t.get_text() for t in fig.axes[0].texts][1:] == ["closed"] * 2
    assert table["first"].isna().sum() == 2


def test_verdicts_of_two_models(base):
    knock = planted.knockout(np.random.default_rng(1), base)
    found = findings.table([findings.cross_frame_early(knock, base)])
    both = pd.concat([found.assign(model="a"), found.assign(model="b", verdict="undecided")])
    fig, table = figures.verdicts(both)
    assert {"reproduced", "undecided"} <= {text.get_text() for text in fig.axes[0].texts}
    assert len(table) == 2 and "brief" not in table

"""The same claims with one choice made otherwise: what stays, what flips, and what is not judged again."""

import numpy as np
import pandas as pd
import planted
import pytest

from analysis_lib import figures, findings
from analysis_lib.findings.robustness import in_margin


@pytest.fixture
def folder(tmp_path):
    """Results of a model whose second training has no exchange between frames, and which were measured with two
    windows."""
    rng, base = np.random.default_rng(0), planted.baseline(np.random.default_rng(0), n=24)
    knock = planted.knockout(rng, base)
    late = knock.assign(relative_change=np.where(knock["layer"] > 6, -30.0, 0.0), window=5)
    first, second = (tmp_path / name / "embedded-k3-center" for name in ("mine", "mine-seed1"))
    planted.store(first, baseline=base, knockout=knock, emergence=planted.emergence(rng, base))
    planted.store(first, widths=pd.concat([knock.assign(window=3), late], ignore_index=True))
    planted.store(second, baseline=base, knockout=planted.knockout(rng, base, scale=0.02))
    return first


def test_verdicts_are_judged_again_where_a_variant_changes_them(folder):
    table = findings.fragility(folder).set_index(["variant", "name"])
    assert not table.loc["as reported"]["flips"].any()
    assert table.loc[("window 5", "cross-frame early"), "flips"]
    assert not table.loc[("window 3", "cross-frame early"), "flips"]
    assert table.loc[("training seed1", "cross-frame early"), "verdict"] != "reproduced"
    assert {"videos, half 1", "videos, half 2", "margin"} <= set(table.index.get_level_values("variant"))


def test_what_a_variant_does_not_touch_is_not_judged_again(folder):
    table = findings.fragility(folder)
    judged = table.groupby("variant")["name"].agg(set)
    assert "answer in the second half" not in judged["margin"] | judged["window 3"]
    assert "above chance" in judged["videos, half 1"] and "above chance" not in judged["window 3"]


def test_halves_hold_different_videos(folder):
    table = findings.fragility(folder).set_index(["variant", "name"])["n"].unstack(0)
    assert (table["videos, half 1"] + table["videos, half 2"] == table["as reported"]).all()


def test_margins_are_shares_of_the_mean_margin_of_right_answers():
    rows = pd.DataFrame({"task": "t", "sample_id": ["a", "b"], "margin_base": [4.0, -1.0], "margin_knock": [2.0, -1.0]})
    assert in_margin(rows)["relative_change"].tolist() == [-50.0, 0.0]


def test_the_figure_frames_what_flips(folder):
    table = findings.fragility(folder)
    fig, drawn = figures.fragility(table)
    frames = [p for p in fig.axes[0].patches if not p.get_fill()]
    assert len(frames) == table["flips"].sum() > 0 and len(drawn) == len(table)

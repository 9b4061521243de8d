"""How far rows moved is counted exactly, and what is too far depends on what differs."""

import numpy as np
import pandas as pd
import planted
import pytest

from analysis_lib import findings
from analysis_lib.findings.drift import BOUNDS, disagreement, rows_drift, too_far
from analysis_lib.study.tables import TABLES

ROUNDING = BOUNDS["rounding"]


@pytest.fixture
def rows():
    n = 200
    table = {"task": "t", "sample_id": [f"t/{i}" for i in range(n)], "edge_set": "cross-frame", "layer": 1}
    numbers = {"p_base": 0.9, "p_knock": 0.5, "relative_change": -44.0, "margin_base": 3.0, "margin_knock": 1.0}
    return pd.DataFrame(table | numbers | {"prediction": "A", "correct": True})


def test_equal_rows_have_not_moved(rows):
    found = rows_drift(rows, rows.sample(frac=1, random_state=0))
    assert found["rows"] == 200 and found.pop("example") == "" and not any(v for k, v in found.items() if k != "rows")
    assert too_far(rows_drift(rows, rows), BOUNDS["nothing"]) == ""


def test_largest_and_99th_percentile_are_those_of_all_numbers_of_a_kind(rows):
    new = rows.copy()
    new.loc[0, "p_knock"] += 0.4  # one of 400 probabilities
    new.loc[:9, "margin_knock"] -= 0.5  # ten of 400 margins
    found = rows_drift(rows, new)
    assert found["probability"] == pytest.approx(0.4) and found["probability_99"] == 0
    assert found["margin"] == found["margin_99"] == pytest.approx(0.5)
    assert "probability moved by 0 (99 % of the rows) and 0.4 (all), expected 0.0001 and 0.01" in too_far(
        found, ROUNDING
    )


def test_rows_on_one_side_only_are_counted_and_not_compared(rows):
    found = rows_drift(rows, rows.iloc[:150].assign(p_knock=0.4))
    assert (found["rows"], found["alone"], found["probability"]) == (150, 50, pytest.approx(0.1))
    assert rows_drift(rows, rows.iloc[:0])["rows"] == 0


def test_a_number_that_one_side_lacks_is_infinitely_far(rows):
    assert rows_drift(rows, rows.assign(p_knock=rows["p_knock"].where(rows["layer"] > 1)))["probability"] == np.inf


def test_an_answer_may_change_on_the_fence_alone(rows):
    new = rows.assign(prediction=["B", *rows["prediction"][1:]])
    assert "1 answers changed that were not on the fence (t/0 cross-frame 1)" in too_far(
        rows_drift(rows, new), ROUNDING
    )
    edge = rows.assign(margin_knock=[0.0001, *rows["margin_knock"][1:]])
    found = rows_drift(edge, new.assign(margin_knock=edge["margin_knock"]), ROUNDING["fence"])
    assert (found["answers"], found["firm"]) == (1, 0) and too_far(found, ROUNDING) == ""


def test_counts_that_differ_are_a_share_of_the_rows():
    rng = np.random.default_rng(0)
    words = planted.lens(rng, planted.baseline(rng, n=4))
    moved = words.assign(count=words["count"] + (np.arange(len(words)) % 10 == 0))
    assert rows_drift(words, moved)["counts"] == pytest.approx(0.1)
    assert "10.0 % of the counts differ, expected 1 %" in too_far(rows_drift(words, moved), ROUNDING)


def test_every_stored_number_is_compared():
    """A new column of numbers belongs to a kind, or it would drift unseen."""
    kinds = ("p_", "probability", "margin", "relative_change")
    floats = {c for columns in TABLES.values() for c in columns.split() if c.startswith(kinds)}
    assert {"p_base", "p_knock", "p_pruned", "p_answer", "probability", "margin", "relative_change"} <= floats


@pytest.fixture(scope="module")
def claim():
    rng = np.random.default_rng(0)
    base = planted.baseline(rng, n=24)
    knock = planted.knockout(rng, base, ["cross-frame"])

    def make(shift=0.0, scale=1.0):
        changed = knock.assign(relative_change=scale * knock["relative_change"] + shift)
        return findings.cross_frame_early(changed, base)

    return make


def test_a_shifted_curve_is_found_although_its_effect_stays(claim):
    old, new = claim(), claim(shift=3.0)
    assert old.effect == pytest.approx(new.effect) and old.verdict == new.verdict
    assert disagreement(old, new, ROUNDING).startswith("change moved by 3 %")


def test_verdict_and_effect_are_compared(claim):
    said = disagreement(claim(), claim(scale=0.01), ROUNDING)
    assert "reproduced in the record, not reproduced here" in said and "effect or interval moved by" in said
    assert disagreement(claim(), claim(), BOUNDS["nothing"]) == ""
    assert disagreement(None, claim(), ROUNDING) == "not in the record"
    assert disagreement(claim(), None, ROUNDING) == "not measured here"


def test_in_another_number_format_effects_count_and_single_rows_do_not(claim):
    assert disagreement(claim(), claim(shift=3.0), BOUNDS["precision"]) == ""
    assert "effect or interval moved" in disagreement(claim(), claim(scale=1.5), BOUNDS["precision"])

"""Verdicts follow from intervals alone, and the helpers that locate effects in depth are exact."""

import numpy as np
import pandas as pd
import planted
import pytest

from analysis_lib.errors import StudyError
from analysis_lib.findings import claims, paper
from analysis_lib.study.tables import BOTH_WAYS

ROWS = pd.DataFrame({"task": "t", "sample_id": range(40), "video": [i // 2 for i in range(40)]})


def decide(low, high, **options):
    reps = pd.Series([(low + high) / 2, *np.linspace(low, high, 1001)])
    options = {"threshold": 2.0, "unit": "points"} | options
    return claims.decide("name", "Something holds", reps, ROWS, "Because.", **options)


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(3, 9, "reproduced"), (-5, 1, "not reproduced"), (1, 5, "undecided")]
)
def test_verdict_follows_from_the_interval(low, high, verdict):
    found = decide(low, high)
    assert (found.verdict, found.n, found.n_videos) == (verdict, 40, 20)


def test_undecided_names_the_videos_that_would_decide():
    assert "About 152 videos would decide" in decide(0.1, 5.9).reason  # the width shrinks with the root
    reps = pd.Series([3.0, *[1.0] * 50, *[5.0] * 50])
    assert "About 80 videos" in claims.decide("n", "s", reps, ROWS, "", threshold=2.0, unit="points").reason
    assert "lies on the threshold" in decide(1.0, 3.0).reason


def test_p_counts_the_draws_that_are_not_above_the_threshold():
    reps = pd.Series([1.0, 1.0, 2.0, -1.0])
    assert claims.decide("n", "s", reps, ROWS, "", threshold=0.0, unit="points").p == 0.5


def test_titles_cannot_hide_the_verdict():
    assert decide(3, 9).title == "Something holds"
    assert decide(-5, 1).title == "Not reproduced: Something holds"
    assert decide(1, 5).title == "Undecided: Something holds"


def test_what_does_not_exist_is_not_reproduced():
    found = claims.decide("n", "s", pd.Series([np.nan] * 5), ROWS, "", threshold=0, unit="of the depth")
    assert (found.verdict, found.p, found.number) == ("not reproduced", 1.0, "no effect to locate")


def test_markdown_states_effect_interval_and_counts():
    text = decide(3, 9)._repr_markdown_()
    assert all(
        part in text
        for part in (
            "**Reproduced: Something holds.**",
            "6.0 points",
            "95 % interval",
            "40 samples from 20 videos",
            "Because.",
        )
    )


def test_text_has_no_digit_that_rounding_could_change():
    assert repr(decide(3, 9.2)) == repr(decide(3 + 1e-12, 9.2)) == "Claim(name: reproduced, 6.1 (3.2 to 9.0) points)"


def test_negative_numbers_have_a_minus_sign():
    assert decide(-5, 1).brief.startswith("−2.0 (")


def test_table_corrects_for_the_number_of_claims():
    table = claims.table([decide(3, 9), decide(3, 9), decide(-5, 1)])
    assert table["p_holm"].iloc[0] == pytest.approx(3 * table["p"].iloc[0])


def test_by_task_takes_each_task_alone():
    base = planted.baseline(np.random.default_rng(0), n=6, accuracy=1.0)
    table = claims.by_task(
        paper.cross_frame_early, planted.knockout(np.random.default_rng(0), base, ["cross-frame"]), base
    )
    assert list(table.index) == sorted(planted.TASKS) and set(table["n"]) == {6}


def curve(*values):
    return pd.DataFrame([values, values], columns=range(1, len(values) + 1))


def test_band_is_a_share_of_the_depth():
    table = curve(1.0, 2.0, 3.0, 4.0)
    assert claims.band(table, 0, 0.5)[0] == 1.5 and claims.band(table, 0.25, 0.75)[0] == 2.5
    assert claims.band(table, 0.25, 0.75, inside=False)[0] == 2.5


def test_centre_weighs_drops_and_ignores_rises():
    assert claims.centre(curve(0.0, 10.0, -50.0, 0.0))[0] == pytest.approx(1.5 / 4)


def test_a_flat_curve_has_no_centre():
    assert claims.centre(curve(0.5, 1.0, 0.5)).isna().all()


def test_crossing_interpolates():
    assert claims.crossing(curve(0.0, 0.0, 0.8, 0.8))[0] == pytest.approx(2.5 / 4)
    assert claims.crossing(curve(0.8, 0.8, 0.8))[0] == pytest.approx(1 / 3)


def test_drops_need_the_edge_set():
    base = planted.baseline(np.random.default_rng(0), n=4)
    with pytest.raises(StudyError, match="no knockout of cross-frame"):
        claims.drops(planted.knockout(np.random.default_rng(0), base, ["video->last"]), base, "cross-frame")


def test_too_few_videos_decide_nothing():
    few = claims.decide("n", "s", pd.Series([9.0] * 50), ROWS.iloc[:8], "", threshold=2, unit="points")
    assert few.verdict == "undecided" and "at least 10 videos" in few.reason


def test_a_summary_names_the_run_and_the_verdicts():
    manifest = {"model": "mine", "benchmark": "tvbench", "commit": "0123456789", "date": "2026-01-02"}
    text = claims.summary(manifest, ROWS, decide(3, 9), "two of three")
    head, _, first, second = text.splitlines()
    assert head == "**mine** on *tvbench*, 40 questions, measured on 2026-01-02 at commit `0123456`."
    assert first.startswith("* **Reproduced:** Something holds, 6.0 (") and second == "* Two of three."
    assert "at commit" not in claims.summary({"model": "m", "benchmark": "b", "commit": None}, ROWS)


def test_words_for_other_frames_follow_what_the_manifest_says():
    manifest = {"model": "m", "benchmark": "b", "settings": {"frames_read": BOTH_WAYS}}
    assert claims.neighbours(manifest)[:2] == ("other", "other") and claims.neighbours({})[:2] == ("earlier", "later")
    assert claims.summary(manifest, ROWS, "x").splitlines()[2].startswith("* Frames read each other both ways")
    assert "both ways" not in claims.summary({**manifest, "settings": {}}, ROWS, "x")

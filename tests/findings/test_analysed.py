"""Which samples are analysed, and that rows in parts are those of the whole."""

import numpy as np
import pandas as pd
import planted
import pytest

from analysis_lib import findings
from analysis_lib.errors import StudyError
from analysis_lib.findings.analysed import Analysed, attach
from analysis_lib.study.rows import Rows, as_rows, stored_rows


def test_attach_keeps_what_was_asked_for():
    table = pd.DataFrame({"task": "t", "sample_id": ["a", "b"], "x": [1, 2]})
    baseline = pd.DataFrame({"task": "t", "sample_id": ["a", "b"], "video": ["v", "w"], "correct": [True, False]})
    assert [len(attach(table, baseline, keep=keep)) for keep in ("correct", "wrong", "all")] == [1, 1, 2]
    with pytest.raises(StudyError, match="use correct, wrong or all"):
        attach(table, baseline, keep="some")
    with pytest.raises(StudyError, match="none of 2 samples here is answered correctly"):
        attach(table, baseline.assign(correct=False))


def test_a_task_without_right_answers_is_no_error_beside_others():
    table = pd.DataFrame({"task": ["s", "t"], "sample_id": ["a", "b"], "x": [1, 2]})
    baseline = table.assign(video="v", correct=[True, False])
    by_task = Rows(lambda columns, where: as_rows(table).frame(columns, **where), ["s", "t"])
    for rows, sizes in ((table, [1]), (by_task, [1, 0])):
        assert [len(part) for part in Analysed(rows, baseline).parts("x")] == sizes
        assert Analysed(rows, baseline).samples()["sample_id"].tolist() == ["a"]
    with pytest.raises(StudyError, match="none of 2 samples"):
        [*Analysed(table, baseline.assign(correct=False)).parts("x")]


def test_a_claim_on_stored_rows_is_the_one_on_frames(tmp_path):
    base = planted.baseline(np.random.default_rng(0), n=12)
    knock = planted.knockout(np.random.default_rng(1), base)
    planted.store(tmp_path, baseline=base, knockout=knock)
    rows = stored_rows(tmp_path, "knockout")
    for claim in (findings.cross_frame_early, findings.integration_before_answer, findings.true_option_dominates):
        stored, held = claim(rows, base), claim(knock, base)
        assert stored == held and len(stored.rows()) == len(held.rows())
    right = base.loc[base["correct"], "sample_id"]
    assert set(stored.rows()["sample_id"]) == set(right) and {"p_base", "prediction"} <= set(stored.rows())


def test_margins_by_half_and_choice_of_samples():
    base = planted.baseline(np.random.default_rng(0), n=12)
    knock = planted.knockout(np.random.default_rng(1), base, ["cross-frame"])
    table = findings.margin_changes(knock, base).set_index(["samples", "layers"])
    change = (knock["margin_knock"] - knock["margin_base"])[knock["layer"] <= 6]
    assert table.loc[("all", "first half"), "mean"] == pytest.approx(change.mean())
    assert table.loc["correct", "n_samples"].tolist() == [base["correct"].sum()] * 2
